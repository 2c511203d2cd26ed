"""True results of the kernels, to a small fraction of a ULP (see README.md)."""

from .cases import Case, calls, load

__all__ = ["Case", "calls", "load"]
