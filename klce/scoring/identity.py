"""Whether a run that goes on is still the same, and its inputs, there and in another process."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from klce.scoring.errors import InputError, warn
from klce.scoring.readers import Location, StrPath, shards_of
from klce.scoring.readers.location import CONTENT_KEYS

_SAMPLE_BYTES = 4096
_SAMPLES = 16
_FILES = 64

_ARGUMENTS = {
    "logits": "LOGITS", "targets": "TARGETS", "p": "P", "q": "Q", "source": "IN",
    "bytes_file": "--bytes", "words_file": "--words",
}  # fmt: skip
"""The inputs that are no options of the command line, or options of another name."""


def fingerprint(place: StrPath | tuple[int, ...] | None) -> Any:
    """Return what tells whether an input is still the same: path, size and time of its files.

    Of a URL, it with the `Identity` of what is there; of numbers in the place of a file, they
    themselves.
    """
    if place is None:
        return None
    if isinstance(place, tuple):
        return ",".join(map(str, place))
    location = Location.parse(place)
    if location.remote:
        found = Identity.of(place)
        return {"url": str(location), "size": found.size, "digest": found.digest}
    stats = [(os.fspath(file.resolve()), file.stat()) for file in files_of(location)]
    return [location.name, [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]]


class Watch:
    """Whether the files on this machine that a run reads change while it does.

    A file that is replaced by another one does not: what is open of it stays what it was. One in a
    `.zarr` does, of which nothing is open.
    """

    def __init__(self, inputs: Mapping[str, StrPath | None]) -> None:
        self._files: dict[Path, tuple[str, os.stat_result]] = {}
        self._open: set[Path] = set()
        for name, place in inputs.items():
            with contextlib.suppress(OSError, InputError):  # to open it will say what is wrong
                if place is not None and not Location.parse(place).remote:
                    location = Location.parse(place)
                    self._files |= {path: (name, path.stat()) for path in files_of(location)}
                    self._open |= {Path(shard.file) for shard in shards_of(location)}

    def check(self) -> None:
        """Warn of the first one that has changed."""
        for path, (name, before) in self._files.items():
            try:
                now = path.stat()
            except OSError:  # it is gone, or cannot be reached any more
                changed = path not in self._open
            else:
                same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
                replaced = now.st_ino != before.st_ino
                changed = not same and not (replaced and path in self._open)
            if changed:
                warn(
                    f"{_ARGUMENTS.get(name, f'--{name}')} has changed while it was read "
                    f"({path}): results may be of what was there before and after"
                )
                return


def differences(found: dict[str, Any], run: dict[str, Any]) -> str:
    """Say how a run that was found differs, in the words of who starts the runs."""
    if found.get("command") != run["command"]:
        return f"the command was klce {found.get('command')}"
    told = []
    if found.get("klce") != run["klce"]:
        told.append(f"klce was {found.get('klce')}, not {run['klce']}")
    if found.get("arithmetic") != run["arithmetic"]:
        told.append("its instruction set gives other bits (KLCE_ISA or another machine)")
    inputs = found.get("inputs", {})
    for name, now in run["inputs"].items():
        if inputs.get(name) != now:
            how = _how_it_changed(inputs.get(name), now)
            told.append(f"{_ARGUMENTS.get(name, f'--{name}')} {how}")
    told_above = {"command", "klce", "arithmetic", "inputs", "shape", "columns"}
    for name in sorted((run.keys() | found.keys()) - told_above):
        before = found.get(name)
        if before != run.get(name):
            option = name.replace("_", "-")
            was = "given" if before is True else before
            told.append(f"--{option} was {'not given' if before is None else was}")
    return ", ".join(told) or "its rows have other columns (--want)"


def _how_it_changed(before: Any, now: Any) -> str:
    """Return, to follow an input's name, how its `fingerprint` of another run differs."""
    if before is None:
        return "was not given"
    if now is None:
        return "was given"
    if isinstance(before, dict):
        same = isinstance(now, dict) and now["url"] == before["url"]
        return f"has changed since ({before['url']})" if same else f"was {before['url']}"
    if isinstance(before, str):  # numbers
        return f"was {before}"
    array, files = before
    array_now, files_now = now if isinstance(now, list) else (None, [])
    then, here = ({path: state for path, *state in listed} for listed in (files, files_now))
    if array != array_now or not then.keys() & here.keys():
        path, name = files[0][0], "" if array is None else f"::{array}"
        return f"was {path}{name}" if len(files) == 1 else f"was other files (the first {path})"
    path = min(path for path in then.keys() | here.keys() if then.get(path) != here.get(path))
    how = "has changed since" if path in then and path in here else "has a new file"
    return f"{how if path in here else 'has lost a file'} ({path})"


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells an input from another of the same name on another machine.

    Attributes
    ----------
    size : int
        Bytes in all.
    digest : str
        Of the sizes of its files and of pieces of them: the first and the last bytes and some
        between. Of a URL, of the sizes and of what the store says of the content.
    """

    size: int
    digest: str

    @classmethod
    def of(cls, place: StrPath) -> "Identity":
        """Return that of an input as this process finds it."""
        location = Location.parse(place)
        size, digest = 0, hashlib.sha256()
        parts = _remote_parts(location) if location.remote else _local_parts(location)
        for part_size, content in parts:
            size += part_size
            digest.update(part_size.to_bytes(8, "little") + content)
        return cls(size, digest.hexdigest())

    def difference(self, other: "Identity") -> str | None:
        """Return how another one differs, or None."""
        if self.size != other.size:
            return f"{other.size:,} bytes, where the run has {self.size:,}"
        return None if self == other else "as many bytes as in the run, but other ones"


def files_of(location: Location) -> list[Path]:
    """Return the files on this machine that are read of a place: of a `.zarr`, all in it."""
    files: list[Path] = []
    for shard in shards_of(location):
        path = Path(shard.file)
        files += filter(Path.is_file, path.rglob("*")) if path.is_dir() else [path]
    return sorted(files)


def _local_parts(location: Location) -> Iterator[tuple[int, bytes]]:
    files = files_of(location)
    sampled = {int(i) for i in np.linspace(0, len(files) - 1, _FILES)}
    for i, path in enumerate(files):
        size = path.stat().st_size
        content = b""
        if i in sampled:
            with path.open("rb") as file:
                content = b"".join(_samples(file, size))
        yield size, content


def _samples(file: BinaryIO, size: int) -> Iterator[bytes]:
    for offset in np.linspace(0, max(0, size - _SAMPLE_BYTES), _SAMPLES).astype(np.int64).tolist():
        file.seek(offset)
        yield file.read(_SAMPLE_BYTES)


def _remote_parts(location: Location) -> Iterator[tuple[int, bytes]]:
    system, _ = location.filesystem()
    files: list[str] = []
    for shard in shards_of(location):
        system, path = shard.filesystem()
        with shard.remote_errors():
            files += system.find(path) if shard.suffix == ".zarr" else [path]
    with location.remote_errors():
        infos = [system.info(file) for file in sorted(files)]
    for info in infos:
        content = [str(info.get(key)) for key in CONTENT_KEYS]
        yield int(info.get("size") or 0), "".join(content).encode()
