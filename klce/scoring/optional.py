"""Libraries that only some formats and outputs need, imported when they are."""

import importlib
from types import ModuleType

from klce.scoring.errors import InputError

EXTRAS = {
    "dask": "dask",
    "distributed": "dask",
    "fsspec": "formats",
    "ml_dtypes": "formats",
    "pyarrow": "formats",
    "safetensors": "formats",
    "zarr": "formats",
    "jinja2": "report",
    "matplotlib": "report",
}
"""The extra of klce that installs each."""


def library(module: str, task: str) -> ModuleType:
    """Import a module for a task, which an error names, should its package be missing."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise InputError(f"{task} needs {package}: pip install 'klce[{EXTRAS[package]}]'") from None
