"""A pytest plugin that puts klce's functions in the place of a peer's, before its tests start.

``--stand-in SUITE`` names a row of ``suites.py``. A test in which no function of klce ran fails.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.peers.suites import SUITES, Suite

calls: Counter[str] = Counter()
stood_in: list[Callable[..., Any]] = []
left_out: Counter[str] = Counter()


def found(name: str) -> tuple[Any, str]:
    """Return the module of a dotted name, and its last part."""
    module, _, attribute = name.rpartition(".")
    return importlib.import_module(module), attribute


def stand_in(original: Any, function: Any, suite: Suite) -> Callable[..., Any]:
    """Return klce's function, counted, under the name of the peer's."""
    assert function.__module__.startswith("klce.compat."), function

    def called(*args: Any, _no_deco: bool = False, **kwargs: Any) -> Any:
        # With _no_deco SciPy's tests call a function without its handling of nan, on rows that
        # have none, to compare with.
        if suite.complex_to_peer and any(np.iscomplexobj(arg) for arg in args):
            return original(*args, **kwargs)
        calls[function.__name__] += 1
        return function(*args, **kwargs)

    functools.update_wrapper(called, function)
    stood_in.append(called)
    return called


def replace(suite: Suite) -> None:
    for ours, places in suite.stand_ins.items():
        klce_module, name = found(ours)
        modules = [importlib.import_module(place) for place in places]
        original = getattr(modules[0], name)
        function = stand_in(original, getattr(klce_module, name), suite)
        # In klce's own module too: by this name a test may pickle it.
        for module in (klce_module, *modules):
            setattr(module, name, function)
        if places[0].startswith("scipy."):
            # What SciPy's tests look up of a function under test: its array backends.
            from scipy._lib._array_api import xp_capabilities_table

            if original in xp_capabilities_table:
                xp_capabilities_table[function] = xp_capabilities_table[original]
        if name == "jensenshannon":
            # pdist(x, "test_jensenshannon") is to call the function of that name.
            info = modules[0]._TEST_METRICS[f"test_{name}"]
            object.__setattr__(info, "dist_func", function)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stand-in", choices=sorted(SUITES), required=True)


def pytest_configure(config: pytest.Config) -> None:
    replace(SUITES[config.getoption("stand_in")])


def full_name(item: pytest.Item) -> str:
    """Name a test by its class, its own name and, where pytest only numbers them, its functions."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    functions = [f.__name__ for f in stood_in if any(f is value for value in parameters.values())]
    return " ".join([item.nodeid.partition("::")[2], *functions])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    suite = SUITES[config.getoption("stand_in")]
    kept = []
    for item in items:
        name = full_name(item)
        if not re.search(suite.select, name):
            continue
        pattern = next((p for p in suite.left_out if re.search(p, name)), None)
        if pattern is None:
            kept.append(item)
        else:
            left_out[pattern] += 1
    stale = set(suite.left_out) - set(left_out)
    if stale:
        raise pytest.UsageError(f"no test is left out by {sorted(stale)}: is it still needed?")
    if not kept:
        raise pytest.UsageError(f"{suite.module} has no test that {suite.select!r} selects")
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    before = calls.total()
    result = yield
    if calls.total() == before:
        pytest.fail("the test passed without a function of klce: is the peer's still in its place?")
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    suite = SUITES[config.getoption("stand_in")]
    for pattern, count in left_out.items():
        terminalreporter.write_line(f"left out: {count} ({suite.left_out[pattern]})")
    ran = ", ".join(f"{name} {count}" for name, count in sorted(calls.items()))
    terminalreporter.write_line(f"calls of klce: {ran}")
