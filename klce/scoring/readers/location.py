"""Where an array is: a path or a URL, and its name in a file that holds several."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from klce.scoring.errors import InputError, one_line
from klce.scoring.optional import library

StrPath = str | os.PathLike[str]

EMPTY_PATH = "an empty path names no file, got ''"
"""What is said of one."""

CONTENT_KEYS = ("ETag", "etag", "md5Hash", "content_md5")
"""By which stores tell the content of what is behind a URL."""

_TIME_KEYS = ("Last-Modified", "LastModified", "mtime", "modified", "updated", "created")

_ARCHIVES = ("zip://", "tar://", "libarchive://")
"""Whose files cannot be read at any place without decompressing all before it."""


@dataclass(frozen=True, slots=True)
class Location:
    """A file, local or behind a URL that fsspec knows, and the name of an array in it.

    Attributes
    ----------
    file : str
        The path or the URL.
    name : str or None
        The array's name, which is written after two colons: ``model.safetensors::logits``.
    """

    file: str
    name: str | None = None

    @classmethod
    def parse(cls, text: StrPath) -> "Location":
        """Split what a user wrote. A file whose own name has colons is itself."""
        written = os.fspath(text)
        if not written:
            raise InputError(EMPTY_PATH)
        file, colons, name = written.rpartition("::")
        # fsspec chains URLs with the same colons: filecache::s3://bucket/logits.npy
        if not colons or not file or "://" in name or os.path.exists(written):
            file, name = written, ""
        return cls(file.removeprefix("file://"), name or None)

    def __str__(self) -> str:
        """Return what the user wrote."""
        return self.file if self.name is None else f"{self.file}::{self.name}"

    @property
    def remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.file

    @property
    def path(self) -> Path:
        """The path of a file on this machine."""
        return Path(self.file)

    @property
    def suffix(self) -> str:
        """The suffix that names the format, in lower case."""
        file = self.file
        if "http://" in file or "https://" in file:  # a query may sign it
            file = re.split("[?#]", file, maxsplit=1)[0]
        return PurePosixPath(file).suffix.lower()

    def open(self) -> BinaryIO:
        """Open the file to read bytes anywhere in it."""
        if not self.remote:
            return self.path.open("rb")
        system, path = self.filesystem()
        with self.remote_errors():
            return cast("BinaryIO", system.open(path, "rb"))

    def filesystem(self) -> tuple[Any, str]:
        """Return fsspec's file system of a URL, and the path in it."""
        if self.file.startswith(_ARCHIVES):
            raise InputError(f"{self}: files in an archive are not read; extract them first")
        fsspec = library("fsspec", f"{self.file}: reading a URL")
        with self.remote_errors():  # a protocol unknown, or its library missing
            system, path = fsspec.core.url_to_fs(self.file)
        return system, str(path)

    def state(self, *, again: bool = False) -> tuple[int | str, ...]:
        """Return what tells whether the file was replaced; `again`, not by what a store told then.

        Of a folder, as a `.zarr` is, nothing tells whether the files in it were.
        """
        if not self.remote:
            stat = os.stat(self.file)
            return stat.st_ino, stat.st_size, stat.st_mtime_ns
        system, path = self.filesystem()
        with self.remote_errors():
            if again:
                system.invalidate_cache(path)
            info = system.info(path)
        # Times only without them: those in a list and of a file are not as exact in all stores.
        for keys in (CONTENT_KEYS, _TIME_KEYS):
            told = [f"{key}: {info[key]}" for key in keys if info.get(key)]
            if told:
                break
        return int(info.get("size") or 0), *told

    @contextlib.contextmanager
    def remote_errors(self) -> Iterator[None]:
        """Name the URL in whatever the library of its protocol raises."""
        try:
            yield
        except FileNotFoundError:
            missing = errno.ENOENT
            raise FileNotFoundError(missing, os.strerror(missing), self.file) from None
        except Exception as error:
            raise InputError(f"{self.file}: {one_line(error)}") from None


def absolute(place: StrPath) -> str:
    """Return a place as a process in another folder has to name it."""
    location = Location.parse(place)
    if location.remote:
        return str(location)
    return str(Location(os.path.abspath(location.file), location.name))
