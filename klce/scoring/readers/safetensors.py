"""Hugging Face's file of named tensors: `.safetensors`, bfloat16 included."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klce.scoring.errors import InputError, one_line
from klce.scoring.optional import library
from klce.scoring.readers.base import FileMap, Reader, read_blocks
from klce.scoring.readers.location import Location

_DTYPES = {
    "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
}  # fmt: skip


class SafetensorsFile:
    """A file of tensors."""

    def __init__(self, location: Location) -> None:
        safetensors = library("safetensors", f"{location.file}: reading .safetensors files")
        self._location = location
        path = location.path
        with path.open("rb") as file:  # for an error that says what is wrong in the system's words
            try:
                self._file = safetensors.safe_open(path, framework="numpy")
            except safetensors.SafetensorError as error:
                what = f"not a whole .safetensors file: {one_line(error)}"
                raise InputError(f"{path}: {what}") from None
            self._map = FileMap(file, location.file)
        self.names = tuple(self._file.keys())

    def array(self, name: str) -> Reader:
        """Open one of the tensors."""
        path = f"{self._location.file}::{name}"
        return SafetensorsReader(self._file.get_slice(name), path, self._map)


class SafetensorsReader(Reader):
    """A tensor; its slices are copied out of the library's map of the file."""

    def __init__(self, tensor: Any, path: str, file_map: FileMap) -> None:
        self.path, self._map = path, file_map
        self.shape: tuple[int, ...] = tuple(tensor.get_shape())
        name = tensor.get_dtype()
        if name == "BF16":
            self.dtype = np.dtype(library("ml_dtypes", f"{path}: bfloat16").bfloat16)
        elif name in _DTYPES:
            self.dtype = np.dtype(_DTYPES[name])
        else:
            raise InputError(f"{path}: dtype {name} is not supported")
        self._tensor = tensor

    def read(self, start: int, stop: int, leading: int) -> NDArray[Any]:
        """Return items `start` to `stop`, numbered in C order over the first `leading` axes."""
        axes, item = self.shape[:leading], self.shape[leading:]
        if start == stop:
            return np.empty((0, *item), self.dtype)
        self._map.check()
        return read_blocks(self._tensor, start, stop, axes, item)
