"""Array files, by suffix. A new format is one module here and one row in `READERS`."""

import contextlib
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from klce.scoring.errors import InputError
from klce.scoring.readers.arrow import open_arrow
from klce.scoring.readers.base import ArrayFile, Reader, SingleArray, spans
from klce.scoring.readers.kld import KldFile
from klce.scoring.readers.location import Location, StrPath, absolute
from klce.scoring.readers.npy import NpyReader
from klce.scoring.readers.npz import NpzFile
from klce.scoring.readers.parquet import ParquetFile
from klce.scoring.readers.safetensors import SafetensorsFile
from klce.scoring.readers.shards import Kind, ShardsFile, find_shards, takes_in
from klce.scoring.readers.zarr import ZarrFile

__all__ = [
    "READERS",
    "ArrayFile",
    "Format",
    "Location",
    "Reader",
    "StrPath",
    "absolute",
    "kinds_of",
    "open_file",
    "open_reader",
    "shards_of",
    "spans",
    "would_read",
]


@dataclass(frozen=True, slots=True)
class Format:
    """How files of a suffix are opened.

    Attributes
    ----------
    open : callable
        Opens one.
    remote : bool
        Are they read behind URLs too?
    joined : callable or None
        Opens those of a folder or a pattern as one; without it, each of their arrays is joined.
    """

    open: Callable[[Location], ArrayFile]
    remote: bool = True
    joined: Callable[[Location, list[Location]], ArrayFile] | None = None


READERS = {
    ".npy": Format(lambda location: SingleArray(NpyReader(location))),
    ".npz": Format(NpzFile),
    ".safetensors": Format(SafetensorsFile, remote=False),
    ".zarr": Format(ZarrFile),
    ".parquet": Format(ParquetFile),
    ".arrow": Format(open_arrow, remote=False),
    ".arrows": Format(open_arrow, remote=False),
    ".feather": Format(open_arrow, remote=False),
    ".kld": Format(KldFile, joined=KldFile),  # whose chunks are numbered through all files
}

_SUFFIXES = tuple(READERS)

LOGITS = ("logits", "log_probs")
"""The names of the array that is read as logits from a file with several, unless one is given."""

_SHOWN = 8
"""How many of a file's arrays a message names."""


def open_file(location: Location) -> ArrayFile:
    """Open a file by the format that its suffix names; or a folder or a pattern of such files."""
    shards = find_shards(location, _SUFFIXES)
    for shard in shards or [location]:
        _check_file(shard)
    if shards is None:
        return _open_single(location)
    joined = READERS[shards[0].suffix].joined
    if joined is not None:
        return joined(location, shards)
    return ShardsFile(location, shards, _open_single)


def shards_of(location: Location) -> list[Location]:
    """Return the files that `open_file` opens: one, or those of a folder or a pattern."""
    return find_shards(location, _SUFFIXES) or [location]


def would_read(location: Location, path: Path) -> bool:
    """Tell whether a local file, once it is there, would be read as a part of a location."""
    return takes_in(location, path, _SUFFIXES)


def _check_file(location: Location) -> None:
    if location.remote:
        return
    mode = Path(location.file).stat().st_mode  # a missing file is missing, whatever its suffix
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # to open a pipe waits for its writer
        raise InputError(
            f"{location.file}: is a pipe or a device, which is read from its beginning only; "
            "copy what it gives to a file"
        )


def _open_single(location: Location) -> ArrayFile:
    if location.remote and location.suffix not in READERS:
        system, path = location.filesystem()
        with location.remote_errors():
            system.info(path)
    try:
        found = READERS[location.suffix]
    except KeyError:
        known = ", ".join(READERS)
        raise InputError(f"{location.file}: not a file type that klce reads ({known})") from None
    if location.remote and not found.remote:
        *others, last = (suffix for suffix, each in READERS.items() if each.remote)
        raise InputError(
            f"{location.file}: this format is read from local files only; "
            f"copy the file here, or use {', '.join(others)} or {last}"
        )
    return found.open(location)


def open_reader(place: StrPath, prefer: tuple[str, ...] = LOGITS) -> Reader:
    """Open an array: ``FILE``, or ``FILE::NAME`` where the file holds several.

    Without a name, a file's only array is read, or the one that is called as `prefer` says.
    """
    location = Location.parse(place)
    file = open_file(location)
    names = tuple(file.names)
    if location.name is not None:
        if location.name not in names or names == ("",):
            kinds_of(file, ())  # files whose arrays have other names come first
            raise InputError(f"{location.file}: {_holds(names)}, not {location.name!r}")
        return file.array(location.name)
    for name in prefer:
        if name in names:
            return file.array(name)
    if len(names) != 1:
        raise InputError(f"{location.file}: {_holds(names)}{_example(location, file, prefer)}")
    return file.array(names[0])


def kinds_of(file: ArrayFile, names: Iterable[str]) -> dict[str, Kind | None]:
    """Return shape and dtype of some arrays of a file, None where one is not read.

    Files of a folder whose arrays have other names than those of the first are refused.
    """
    if isinstance(file, ShardsFile):
        return file.survey(names)
    found: dict[str, Kind | None] = dict.fromkeys(names)
    for name in found:
        with contextlib.suppress(InputError):
            reader = file.array(name)
            found[name] = reader.shape, reader.dtype
    return found


def _example(location: Location, file: ArrayFile, prefer: tuple[str, ...]) -> str:
    """Return advice to name one of a file's arrays: for logits, one that may be some."""
    axes = 2 if prefer is LOGITS else 1
    for name, kind in kinds_of(file, file.names[:_SHOWN]).items():
        if kind is not None and len(kind[0]) >= axes:
            return f"; name one, as in {location.file}::{name}"
    wanted = "; logits need 2 axes or more, of tables a column of lists"
    return wanted if file.names and prefer is LOGITS else ""


def _holds(names: tuple[str, ...]) -> str:
    if names == ("",):
        return "holds one array, which has no name"
    shown = [repr(name) for name in names[:_SHOWN]] + ["..."] * (len(names) > _SHOWN)
    return f"holds {len(names):,} arrays ({', '.join(shown)})" if names else "holds no arrays"
