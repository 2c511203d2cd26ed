"""True results of the kernels, to a small fraction of a ULP (see README.md)."""

from .cases import Case, load

__all__ = ["Case", "load"]
