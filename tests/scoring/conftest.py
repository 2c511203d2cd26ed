"""A folder of small files to score and to compare."""

import numpy as np
import pytest


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work in a folder with logits of two models, labels and groups of 1000 rows."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("logits.npy", rng.normal(size=(1000, 20)).astype(np.float32))
    np.save("q.npy", rng.normal(size=(1000, 20)).astype(np.float32))
    np.save("targets.npy", rng.integers(0, 20, 1000))
    np.save("groups.npy", np.arange(1000) // 30)
    return tmp_path
