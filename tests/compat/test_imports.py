"""The stand-ins import no peer, and ``import klce`` does not import them."""

import pytest

from tests.kernels import run_script

PEERS = ("scipy", "torch", "sklearn", "onnx", "pandas")
SHOW = "print(sorted(name for name in sys.modules if name.split('.')[0] in sys.argv[1:]))"


def test_klce_does_not_import_the_stand_ins():
    done = run_script("import sys, klce; print('klce.compat' in sys.modules)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


@pytest.mark.parametrize("name", ["scipy", "torch", "sklearn"])
def test_no_peer_is_imported(name):
    calls = {
        "scipy": "m.entropy([1.0, 1.0]), m.logsumexp([1.0]), m.rel_entr(1.0, 2.0)",
        "torch": "m.cross_entropy(np.zeros((1, 2)), np.zeros(1, int)), m.softmax(np.ones(2), 0)",
        "sklearn": "m.log_loss([0, 1], [0.2, 0.7]), m.d2_log_loss_score([0, 1], [0.2, 0.7])",
    }
    code = f"import sys; import numpy as np; import klce.compat.{name} as m; {calls[name]}; {SHOW}"
    done = run_script(code, *PEERS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
