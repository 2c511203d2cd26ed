"""Runs of the commands by their names, on the files of the fixture `files`."""

from pathlib import Path

from klce.scoring import compare_file, score_file


def run(command, out=None, **options):
    options = {"groups": "groups.npy", "out": out} | options
    if command == "score":
        return score_file("logits.npy", "targets.npy", **options)
    compat = "llama.cpp" if command == "compat" else None
    return compare_file("logits.npy", "q.npy", "targets.npy", compat=compat, **options)


def said(report):
    """What a run says but for its speed, its place and the name of its results."""
    differ = ("seconds", "rows_per_second", "gigabytes_per_second", "out", "engine", "resumed_rows")
    return {name: value for name, value in report.to_dict().items() if name not in differ}


def content(out):
    """The bytes of a file of results, or of each file of a folder of them, by its name."""
    path = Path(out)
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    return path.read_bytes()


def stop_after(rows):
    def progress(done, total):
        if done >= total * rows // 1000:
            raise KeyboardInterrupt

    return progress
