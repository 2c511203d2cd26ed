"""``import klce`` brings in its own modules and next to nothing else: it has to be quick."""

from tests.kernels import run_script

MODULES = {
    "klce",
    "klce._arrays",
    "klce._axes",
    "klce._blocks",
    "klce._call",
    "klce._entry",
    "klce._reduce",
    "klce._refusal",
    "klce._ufuncs",
    "klce._validate",
    "klce.config",
    "klce.divergences",
    "klce.losses",
    "klce.normalizers",
    "klce.rows",
}
# What they import by name; NumPy has imported most of it.
STANDARD = {
    "__future__",
    "collections.abc",
    "functools",
    "importlib",
    "importlib._bootstrap",
    "importlib._bootstrap_external",
    "itertools",
    "math",
    "operator",
    "os",
    "typing",
}


def test_import_brings_in_little():
    done = run_script(
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        "import klce\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    assert (done.returncode, done.stderr) == (0, "")
    # The runtime of the extension module is no file.
    found = {name for name in done.stdout.split() if not name.startswith(("_cython_", "cython_"))}
    assert found >= MODULES
    assert found <= MODULES | STANDARD, sorted(found - MODULES - STANDARD)


def test_an_older_numpy_is_refused():
    """With it, a conversion or an error would fail in its own words, long after the import."""
    done = run_script("import numpy; numpy.__version__ = '1.26.4'; import klce")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "ImportError: klce needs NumPy 2 or newer, got 1.26.4"


def test_names_for_annotations_are_for_type_checkers():
    """No module needs them at run time, in any of its calls with arrays in memory."""
    done = run_script(
        "import sys, numpy as np, klce\n"
        "x = np.zeros((2, 3, 4), np.int8)\n"
        "klce.logsumexp(x, (0, 1)), klce.cross_entropy(x, x[..., 0], where=x == 0)\n"
        "klce.kl_divergence(x + 1, x + 1.0, reduction='mean'), klce.score(x, top_k=1)\n"
        "import klce.reference, klce.compat.scipy, klce.compat.torch, klce.compat.sklearn\n"
        "print('klce._typing' in sys.modules, 'dask' in sys.modules)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")
