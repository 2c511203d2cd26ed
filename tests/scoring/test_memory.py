"""Memory beyond the maps of files, on files of zeros that take no room on disk."""

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

MEASURED = """
import re, sys, threading
from pathlib import Path
from klce.scoring import compare_file, convert_file, score_file

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

samples, done = [anonymous()], threading.Event()
def sample():
    while not done.wait(0.002):
        samples.append(anonymous())

sampler = threading.Thread(target=sample)
sampler.start()
try:
    exec(sys.argv[1])
finally:
    done.set()
    sampler.join()
print(len(samples), samples[0] / 1024, max(samples) / 1024)
"""


SCORE, COMPARE = (
    "score_file('p.npy', out='out.npy')",
    "compare_file('p.npy', 'q.npy', out='out.npy')",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "shape", "dtype", "fortran_order", "most"),
    [
        (SCORE, (500_000, 1000), "<f4", False, 150),  # 2 GB
        (SCORE, (130_000, 1000), "<f4", True, 150),
        (SCORE, (65_000, 1000), ">f8", False, 150),
        (SCORE, (1_000, 128_256), "<f4", False, 150),
        (SCORE, (200_000, 1000), "<f2", False, 150),
        (SCORE, (6_000_000, 2), "<f4", False, 150),
        ("score_file('p.npy', out='out/')", (6_000_000, 2), "<f4", False, 256),
        ("score_file('p.npy', report='r.html')", (2_000_000, 2), "<f4", False, 256),
        (COMPARE, (50_000, 1000), "<f4", False, 256),
        (COMPARE, (300, 128_256), "<f4", False, 256),
        ("compare_file('p.npy', 'q.npy', report='r.html')", (2_000_000, 2), "<f4", False, 256),
        ("compare_file('p.npy', 'q.npy', memory=30_000_000)", (1, 30_000_000), "<f4", False, 30),
        (
            "compare_file('p.npy', 'q.npy', 't.npy', groups='offsets.npy')",
            (2_000_000, 2), "<f4", False, 200,
        ),
        (
            "compare_file('p.npy', 'q.npy', 't.npy', compat='llama.cpp')",
            (40_000, 1000), "<f4", False, 256,
        ),
        ("convert_file('p.npy', 'out.parquet')", (100_000, 1000), "<f4", False, 256),
        ("score_file('p.npy', memory=16_000_000)", (150, 200, 1000), "<f4", True, 40),
    ],
)  # fmt: skip
def test_memory_is_bounded(tmp_path, monkeypatch, job, shape, dtype, fortran_order, most):
    monkeypatch.chdir(tmp_path)
    for name in ("p.npy", "q.npy"):
        with (tmp_path / name).open("wb") as file:
            header = {"descr": dtype, "fortran_order": fortran_order, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + math.prod(shape) * np.dtype(dtype).itemsize)
    np.save("t.npy", np.zeros(shape[0], np.int8))
    np.save("offsets.npy", np.arange(shape[0] + 1))
    command = [sys.executable, "-c", MEASURED, job]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    count, begin, peak = map(float, done.stdout.split())
    assert count > 10
    assert peak < 300
    assert peak - begin < most


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100, 2000, 40_000])
def test_memory_of_a_folder_is_bounded(tmp_path, rows):
    """Of maps alone, but for blocks of small files, which are copies of 4 MB."""
    (tmp_path / "p").mkdir()
    for i in range(80_000 // rows):
        with (tmp_path / f"p/{i}.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 1000)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + rows * 4000)
    command = [sys.executable, "-c", MEASURED, "score_file('p')"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    _, begin, peak = map(float, done.stdout.split())
    assert peak - begin < 50


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(3000, 500), (100, 16000), (750, 2000)])
def test_memory_of_chunks_is_bounded(tmp_path, monkeypatch, chunks):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(3000, 16000)).astype(np.float32)
    zarr.create_array("p.zarr", data=values, chunks=chunks)
    job = "import warnings; warnings.simplefilter('ignore'); score_file('p.zarr')"
    command = [sys.executable, "-c", MEASURED, job]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    _, begin, peak = map(float, done.stdout.split())
    assert peak - begin < 256


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_memory_of_parquet_is_bounded(tmp_path, monkeypatch, compression):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(40_000, 2000)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 2000)
    table = pa.table({"logits": column})
    pq.write_table(table, "p.parquet", row_group_size=10_000, compression=compression)
    job = "score_file('p.parquet', memory=32_000_000)"
    command = [sys.executable, "-c", MEASURED, job]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    _, begin, peak = map(float, done.stdout.split())
    assert peak - begin < 115  # pyarrow has 40 of them, and what it decodes some 20


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "most"), [(".parquet", 200), (".arrow", 140)])
def test_memory_of_groups_that_are_written_is_bounded(tmp_path, monkeypatch, suffix, most):
    """By what docs/scoring.md says of them, and some room."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(150_000, 70)).astype(np.float32)
    np.save("x.npy", values)
    job = f"score_file('x.npy', out='out{suffix}', memory=1 << 20, top_k=64)"
    command = [sys.executable, "-c", MEASURED, job]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    _, begin, peak = map(float, done.stdout.split())
    assert peak - begin < most
