"""The peers' installed test modules that klce is to pass, and what of them is left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """Some tests of one installed module, with klce's functions in the place of the peer's."""

    #: The test module.
    module: str
    #: The functions of klce that stand in, and the modules in which tests find the peer's.
    stand_ins: dict[str, tuple[str, ...]]
    #: A regular expression for the names of the tests of these functions.
    select: str = ""
    #: Regular expressions for the names of those that are left out, with a reason each.
    left_out: dict[str, str] = field(default_factory=dict)
    #: Whether SciPy's function takes calls with complex numbers, for a test that mixes them in.
    complex_to_peer: bool = False
    #: The warnings that fail a test, as in the peer's own settings.
    errors: tuple[str, ...] = ("error",)


COMPLEX = "complex numbers, which klce refuses"
BACKENDS = "arrays of other libraries, through scikit-learn's array API dispatch"

SKLEARN_ERRORS = ("default", "error::DeprecationWarning", "error::FutureWarning")


def of_scipy(*names: str, module: str) -> dict[str, tuple[str, ...]]:
    return {f"klce.compat.scipy.{name}": (module,) for name in names}


LOG_LOSSES = {
    f"klce.compat.sklearn.{name}": ("sklearn.metrics", "sklearn.metrics._classification")
    for name in ("log_loss", "d2_log_loss_score")
}

SUITES = {
    "scipy-logsumexp": Suite(
        "scipy.special.tests.test_logsumexp",
        of_scipy("logsumexp", "softmax", "log_softmax", module="scipy.special"),
        left_out={
            r"complex": COMPLEX,
            r"test_gh21610|test_gh21709": COMPLEX,
            r"test_gh22601.*j\)": COMPLEX,
            r"test_device.*1j": COMPLEX,
            r"test_wrap_radians": "a private function of SciPy, for complex numbers",
        },
    ),
    "scipy-elementwise": Suite(
        "scipy.special.tests.test_basic",
        of_scipy("entr", "kl_div", "rel_entr", "xlogy", module="scipy.special"),
        select=r"^test_(entr|kl_div|rel_entr|xlogy)",
        complex_to_peer=True,
    ),
    "scipy-entropy": Suite(
        "scipy.stats.tests.test_entropy",
        of_scipy("entropy", module="scipy.stats"),
        select=r"TestEntropy",
    ),
    "scipy-nan-policy": Suite(
        "scipy.stats.tests.test_axis_nan_policy",
        of_scipy("entropy", module="scipy.stats"),
        select=r" entropy$",
    ),
    "scipy-distance": Suite(
        "scipy.spatial.tests.test_distance",
        of_scipy("jensenshannon", module="scipy.spatial.distance"),
        # By its other names pdist computes the distance in C.
        select=r"^test_jensenshannon|^TestPdist::test_pdist_jensenshannon_.*nonC",
    ),
    "sklearn-log-loss": Suite(
        "sklearn.metrics.tests.test_classification",
        LOG_LOSSES,
        select=r"log_loss",
        errors=SKLEARN_ERRORS,
    ),
    "sklearn-common": Suite(
        "sklearn.metrics.tests.test_common",
        LOG_LOSSES,
        select=r"log_loss",
        left_out={r"array_api": BACKENDS},
        errors=SKLEARN_ERRORS,
    ),
}
