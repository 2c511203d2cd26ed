"""The peers' installed test modules that klce is to pass, and what of them is left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """Some tests of one installed module, with klce's functions in the place of the peer's."""

    #: The test module.
    module: str
    #: Where a function of the peer is found, and klce's that stands in.
    stand_ins: dict[str, str]
    #: A regular expression for the names of the tests of these functions.
    select: str = ""
    #: Regular expressions for the names of those that are left out, with a reason each.
    left_out: dict[str, str] = field(default_factory=dict)
    #: Whether SciPy's function takes calls with complex numbers, for a test that mixes them in.
    complex_to_peer: bool = False


COMPLEX = "complex numbers, which klce refuses"
BACKENDS = "arrays of other libraries, through scikit-learn's array API dispatch"

SUITES = {
    "scipy-logsumexp": Suite(
        "scipy.special.tests.test_logsumexp",
        {
            f"scipy.special.{name}": f"klce.compat.scipy.{name}"
            for name in ("logsumexp", "softmax", "log_softmax")
        },
        left_out={
            r"complex": COMPLEX,
            r"test_gh21610|test_gh21709": COMPLEX,
            r"test_gh22601.*(x\d|y\d)": COMPLEX,
            r"test_device.*1j": COMPLEX,
            r"test_wrap_radians": "a private function of SciPy, for complex numbers",
        },
    ),
    "scipy-elementwise": Suite(
        "scipy.special.tests.test_basic",
        {
            f"scipy.special.{name}": f"klce.compat.scipy.{name}"
            for name in ("entr", "kl_div", "rel_entr", "xlogy")
        },
        select=r"^test_(entr|kl_div|rel_entr|xlogy)",
        complex_to_peer=True,
    ),
    "scipy-entropy": Suite(
        "scipy.stats.tests.test_entropy",
        {"scipy.stats.entropy": "klce.compat.scipy.entropy"},
        select=r"TestEntropy",
    ),
    "scipy-nan-policy": Suite(
        "scipy.stats.tests.test_axis_nan_policy",
        {"scipy.stats.entropy": "klce.compat.scipy.entropy"},
        select=r"entropy",
    ),
    "scipy-distance": Suite(
        "scipy.spatial.tests.test_distance",
        {"scipy.spatial.distance.jensenshannon": "klce.compat.scipy.jensenshannon"},
        select=r"jensenshannon",
    ),
    "sklearn-log-loss": Suite(
        "sklearn.metrics.tests.test_classification",
        {
            f"sklearn.metrics.{name}": f"klce.compat.sklearn.{name}"
            for name in ("log_loss", "d2_log_loss_score")
        },
        select=r"log_loss",
    ),
    "sklearn-common": Suite(
        "sklearn.metrics.tests.test_common",
        {
            f"sklearn.metrics.{name}": f"klce.compat.sklearn.{name}"
            for name in ("log_loss", "d2_log_loss_score")
        },
        select=r"log_loss",
        left_out={r"array_api": BACKENDS},
    ),
}
