"""NumPy's archives of named arrays: `.npz`, compressed or not.

A member is read as a stream, from its beginning to its end, so that memory is bounded whatever its
size. To go back costs reading it again.
"""

import weakref
import zipfile
from typing import BinaryIO, cast

from klce.scoring.errors import InputError
from klce.scoring.readers.base import Reader, closed_on_error, damage_named
from klce.scoring.readers.location import Location
from klce.scoring.readers.npy import NpyReader


class NpzFile:
    """An archive."""

    def __init__(self, location: Location) -> None:
        self._location = location
        with self._archive() as archive:
            self._members = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
        if any(info.header_offset < 0 for info in self._members.values()):
            raise InputError(f"{location.file}: damaged: arrays begin before the archive does")
        self.names = tuple(self._members)

    def _archive(self) -> zipfile.ZipFile:
        location = self._location
        try:
            return zipfile.ZipFile(location.open() if location.remote else location.path)
        except (zipfile.BadZipFile, NotImplementedError):  # the latter for a damaged version
            raise InputError(
                f"{location.file}: not a .npz file, or a truncated or damaged one"
            ) from None

    def array(self, name: str) -> Reader:
        """Open one of the arrays."""
        info = self._members[name]
        path = f"{self._location.file}::{name}"
        # An archive's file stays open for as long as a stream from it is.
        with damage_named(path, "cannot be read"), self._archive() as archive:
            stream = cast("BinaryIO", archive.open(info))
        with damage_named(path, "cannot be read"), closed_on_error(stream):
            reader = NpyReader.from_stream(stream, path, info.file_size)
        # Held from outside: of a cycle that an error left, the file might go before its stream.
        weakref.finalize(reader, stream.close)
        return reader
