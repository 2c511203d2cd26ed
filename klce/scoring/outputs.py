"""Where outputs may go: what is wrong with their places is found before any work."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from klce.scoring.errors import InputError, naming
from klce.scoring.inputs import local_inputs
from klce.scoring.optional import library
from klce.scoring.parts import check_content, part_name
from klce.scoring.readers import Location, StrPath, shards_of, would_read
from klce.scoring.results import WRITERS, Writer


def check_outputs(
    out: StrPath | None,
    resume: bool,
    inputs: dict[str, StrPath | None],
    others: Iterable[StrPath | None] = (),
) -> None:
    """Refuse results that cannot be written, or a run to resume that has none.

    The `others` are where else the run writes to.
    """
    if resume and out is None:
        raise InputError("resume needs a file for the results (--out): that is where rows are kept")
    if out is None:
        return
    if is_folder(out):
        check_folder(out, local_inputs(inputs))
    else:
        folder = "; an --out that ends in a slash is a folder of Parquet parts"
        check_results_path(out, local_inputs(inputs), folder)
    for other in others:
        if other is not None and _resolved(Path(other)).is_relative_to(_resolved(Path(out))):
            raise InputError(f"{out}: the outputs need a place each, and {other} is in this one")


def is_folder(place: StrPath) -> bool:
    """Tell whether an output is named as a folder, with a slash at the end."""
    return os.fspath(place).endswith(("/", os.sep))


def check_results_path(place: StrPath, inputs: list[Location], advice: str = "") -> None:
    """Refuse, before any work, a path that results cannot or should not be written to.

    What is no type of file is told with some advice.
    """
    path = Path(place)
    writer = WRITERS.get(path.suffix.lower())
    if writer is not None:
        check_library(path, writer)
    elif not is_folder(place):
        known = ", ".join(WRITERS)
        raise InputError(f"{path}: not a file type that klce writes results to ({known}){advice}")
    check_output_path(place, inputs)


def check_library(path: Path, writer: type[Writer]) -> None:
    """Refuse, before any work, a file whose writer needs a library that is missing."""
    if writer.needs is not None:
        library(writer.needs, f"{path}: writing {path.suffix.lower()} files")


def check_output_path(place: StrPath, inputs: list[Location]) -> None:
    """Refuse, before any work, a path of any output that cannot or should not be written."""
    path = Path(place)
    if is_folder(place):
        raise InputError(f"{place}: a slash at the end names a folder, not a file for results")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file for results")
    if path.exists() and not path.is_file():  # a file would take its place
        raise InputError(f"{path}: is a pipe or a device, not a file for results")
    check_place(path, inputs)


def check_place(path: Path, inputs: list[Location]) -> None:
    """Refuse, before any work, a place where no file or folder of results can or should be."""
    if not path.parent.is_dir():
        if path.parts[0].endswith(":"):  # a path has one slash of its two or three
            slashes = ":///" if path.parts[0] == "file:" else "://"
            url = path.as_posix().replace(":/", slashes, 1)
            raise InputError(f"{url}: output goes to local files only, not to a URL")
        raise InputError(f"{path}: there is no folder {path.parent}")
    for location in inputs:
        for source in (Path(shard.file) for shard in shards_of(location)):
            if path.exists() and source.exists() and _holds(path, source):
                raise InputError(f"{path}: results would replace the input {source}")
        if would_read(location, path):  # by the next run of the same command
            raise InputError(f"{path}: results would become a part of the input {location}")
    final = _resolved(path)
    with (
        naming(path, final.parent),
        tempfile.NamedTemporaryFile(dir=final.parent, prefix=f".{final.name}."),
    ):
        pass  # the folder takes a file


def _resolved(path: Path) -> Path:
    """Return where links lead to; those that lead in a circle are an error of the system."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.stat()  # raises it, where Path.resolve has an error of its own, or none
    return path.resolve()


def _holds(path: Path, source: Path) -> bool:
    return path.samefile(source) or source.resolve().is_relative_to(path.resolve())


def check_folder(out: StrPath, inputs: list[Location]) -> None:
    """Refuse, before any work, a folder that parts cannot or should not be written to."""
    path = Path(out)
    library("pyarrow", f"{out}: writing a folder of Parquet parts")
    if path.exists() and not path.is_dir():
        raise InputError(f"{out}: is a file, where --out with a slash at the end names a folder")
    final = _resolved(path)
    if os.path.ismount(final) or Path.cwd().is_relative_to(final):
        raise InputError(
            f"{out}: --out replaces no mount point, nor the folder that klce runs in; "
            "name a folder there"
        )
    check_place(path, inputs)
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):  # it could not be emptied
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(out))
    for location in inputs:
        if would_read(location, path / part_name(0)):  # by the next run of the same command
            raise InputError(f"{out}: results would become a part of the input {location}")
    check_content(out)
