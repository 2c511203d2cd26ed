"""The single questions beside the grid, each with its bound.

What a call costs, what a second thread brings, what an import takes, whether there is a cliff at
some number of classes or at special values, and whether cost grows with the input alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import klce
from benchmarks import limits, targets
from benchmarks.cases import SHAPES, Array, Case, Layout, forget, make_case, random_values
from benchmarks.peers import Peer, Run
from benchmarks.peers.klce import Klce, bare_call
from benchmarks.turns import Runner, take_turns

Line = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all lines are measured with."""

    rivals: Mapping[str, Peer]
    threads: int
    rounds: int
    ops: Sequence[str] | None = None  # None: those that the line is about
    dtypes: Sequence[str] | None = None

    def of(self, ops: Iterable[str]) -> list[str]:
        """Return those of the ops that are asked for."""
        return [op for op in ops if self.ops is None or op in self.ops]

    def dtypes_of(self, *dtypes: str) -> list[str]:
        """Return those of the dtypes that are asked for; others that are asked for as well."""
        return list(self.dtypes or dtypes)


def make_line(
    part: str, subject: str, value: float, unit: str, bound: float, at_most: bool
) -> Line:
    """Return a question's answer, with its bound and whether it is within it."""
    met = value <= bound if at_most else value >= bound
    return {
        "part": part,
        "subject": subject,
        "value": value,
        "unit": unit,
        "bound": bound,
        "at most": at_most,
        "met": bool(met),
    }


def _way(case: Case, threads: int, out: bool = True) -> Run:
    contestant = Klce(threads).contestant(case)
    return contestant.into if out and contestant.into else contestant.fresh


def overhead(setting: Setting) -> list[Line]:
    """Measure one call on a contiguous 1x10 over the bare gufunc, and against torch's."""
    result = []
    torch = setting.rivals.get("torch")
    for name in setting.of(targets.OVERHEAD):
        case = make_case(name, targets.ONE_CALL, "float32")
        runners = {"klce": Runner(_way(case, setting.threads, out=False))}
        runners["bare"] = Runner(bare_call(case))
        if torch:
            runners["torch"] = Runner(torch.contestant(case).fresh)
        seconds = {key: median(value) for key, value in take_turns(runners, setting.rounds).items()}
        own = seconds["klce"]
        subject = f"{name} 1x10"
        bound = targets.OVERHEAD[name]
        unit = f"of the bare gufunc's {seconds['bare'] * 1e6:.2f} us"
        result.append(make_line("overhead", subject, own / seconds["bare"], unit, bound, True))
        if torch:
            unit = "torch's time over klce's"
            result.append(make_line("overhead", subject, seconds["torch"] / own, unit, 1.0, False))
    return result


_SCALING = ((Layout((1, 128256)), targets.SPLIT_ROW_SPEEDUP), (SHAPES[1], targets.SPEEDUP))


def scaling(setting: Setting, layouts: Sequence[tuple[Layout, float]] = _SCALING) -> list[Line]:
    """Measure two threads against one, and compare the bits of their results."""
    result = []
    ops = ("logsumexp", "softmax", "cross_entropy none", "entropy logits", "kl logits")
    for layout, bound in layouts:
        for dtype, name in itertools.product(setting.dtypes_of("float32"), setting.of(ops)):
            case = make_case(name, layout, dtype)
            run = _way(case, 2)
            results: dict[int, Array] = {}

            def on(threads: int, run: Run = run) -> Any:
                with klce.threads(threads):
                    return run()

            for threads in (1, 2):
                results[threads] = np.array(on(threads))
            runners = {str(n): Runner(functools.partial(on, n)) for n in (1, 2)}
            copies = case.op.result == "map"
            runners |= limits.runners(case.floats, 2, copies)
            seconds = take_turns(runners, setting.rounds)
            one, two = median(seconds.pop("1")), median(seconds.pop("2"))
            line = make_line(
                "scaling", case.title, one / two, "speed-up by 2 threads", bound, False
            )
            line["same bits"] = results[1].tobytes() == results[2].tobytes()
            share = limits.best(seconds) / two if seconds else 0.0
            line["share"] = share
            # Where memory binds, a second thread cannot bring more.
            line["met"] = line["same bits"] and (line["met"] or share >= targets.ENOUGH_SHARE)
            result.append(line)
    return result


def imports(setting: Setting) -> list[Line]:
    """Measure ``import klce`` after ``import numpy``, in a new process each time."""
    code = (
        "import time, numpy; start = time.perf_counter(); import klce;"
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", code]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        # Compiled to bytecode by a run before, as installed packages are, whatever is set.
        env = os.environ | {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(max(3, setting.rounds) + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            times.append(float(done.stdout) * 1e3)
    unit = "ms over import numpy"
    return [make_line("import", "import klce", median(times[1:]), unit, targets.IMPORT_MS, True)]


def classes(
    setting: Setting, counts: Sequence[int] = range(2, 2001), elements: int = 1 << 20
) -> list[Line]:
    """Sweep over class counts: the time per element at each, against its neighbours'."""
    result = []
    ops = ("logsumexp", "softmax", "cross_entropy none", "kl logits")
    for dtype, name in itertools.product(setting.dtypes_of("float32"), setting.of(ops)):
        whole = Layout((1, elements))
        memory = [random_values(whole, dtype, "logits", seed)[0] for seed in range(2)]
        case = make_case(name, whole, dtype)
        place = np.empty(elements, _way(case, setting.threads, out=False)().dtype)

        def values(layout: Layout, dtype: str, form: str, seed: int, memory: Any = memory) -> Array:
            return memory[seed][: layout.elements].reshape(layout.shape)

        def runner(
            count: int, name: str = name, dtype: str = dtype, place: Array = place
        ) -> Runner:
            layout = Layout((elements // count, count))
            case = make_case(name, layout, dtype, values)
            shape = layout.shape if case.op.result == "map" else layout.row_shape
            call = case.call(getattr(klce, case.op.function), *case.arrays)
            call.keywords["out"] = place[: math.prod(shape)].reshape(shape)
            return Runner(call)

        times = _sweep([*counts], elements, runner, setting.rounds)
        steps = {(a, b): _step(times, a, b) for a, b in itertools.pairwise(counts)}
        pair = max(steps, key=steps.__getitem__)
        unit = f"from {pair[0]} to {pair[1]} classes, per element"
        line = make_line("classes", f"{name} {dtype}", steps[pair], unit, targets.NEIGHBOURS, True)
        line["cliffs"] = [pair for pair, step in steps.items() if step > targets.NEIGHBOURS]
        line["ns per element"] = {str(count): times[count] * 1e9 for count in counts}
        result.append(line)
        forget()
    return result


def _step(times: Mapping[int, float], a: int, b: int) -> float:
    return max(times[a] / times[b], times[b] / times[a])


def _sweep(
    counts: Sequence[int], elements: int, runner: Callable[[int], Runner], rounds: int
) -> dict[int, float]:
    """Return the best time per element at each count; steps are looked at twice."""

    def measure(some: Iterable[int], rounds: int) -> dict[int, float]:
        runners = {str(count): runner(count) for count in some}
        # Alone, so without a pause for others' threads.
        seconds = take_turns(runners, rounds, pause=0, turn=0.001)
        return {
            count: min(seconds[str(count)]) / (elements // count * count)
            for count in map(int, seconds)
        }

    times = measure(counts, rounds)
    steps = [p for p in itertools.pairwise(counts) if _step(times, *p) > targets.NEIGHBOURS]
    if steps:
        again = measure({count for pair in steps for count in pair}, 3 * rounds)
        times |= {count: min(value, times[count]) for count, value in again.items()}
    return times


def special(setting: Setting, layouts: Sequence[Layout] = SHAPES) -> list[Line]:
    """Measure half the classes at -inf, and logits at scale 100, against the plain cell."""
    result = []
    ops = (
        "logsumexp",
        "softmax",
        "log_softmax",
        "cross_entropy none",
        "entropy logits",
        "kl logits",
    )
    for layout in layouts:
        for dtype, name in itertools.product(setting.dtypes_of("float32"), setting.of(ops)):
            case = make_case(name, layout, dtype)
            hidden = np.random.default_rng(3).random(layout.shape, np.float32) < 0.5
            if case.target is not None:  # the loss of a hidden target is inf, which is another job
                index = np.expand_dims(case.target, layout.axis)
                np.put_along_axis(hidden, index, False, layout.axis)
            half = [np.where(hidden, x.dtype.type(-np.inf), x) for x in case.inputs]
            steep = [x * x.dtype.type(100 / 3) for x in case.inputs]  # they are at scale 3
            cases = {
                "plain": case,
                "half at -inf": dataclasses.replace(case, inputs=tuple(half)),
                "scale 100": dataclasses.replace(case, inputs=tuple(steep)),
            }
            runners = {key: Runner(_way(one, setting.threads)) for key, one in cases.items()}
            seconds = take_turns(runners, setting.rounds)
            plain = median(seconds.pop("plain"))
            for key, values in seconds.items():
                subject = f"{case.title}, {key}"
                ratio = median(values) / plain
                result.append(
                    make_line("special", subject, ratio, "of the plain cell", targets.SPECIAL, True)
                )
    return result


_SIZES = tuple(10**k for k in range(4, 10))


def growth(setting: Setting, sizes: Sequence[int] = _SIZES) -> list[Line]:
    """Measure the time per element from 1e4 elements to 1e9, or as many as fit into memory."""
    result = []
    for dtype, name in itertools.product(
        setting.dtypes_of("float32"), setting.of(("logsumexp", "softmax"))
    ):
        times: dict[int, float] = {}
        left_out = []
        some = random_values(Layout((1000, 1000)), dtype, "logits", 0).reshape(-1)

        def values(layout: Layout, dtype: str, form: str, seed: int, some: Array = some) -> Array:
            return np.resize(some, layout.shape)

        for size in sizes:
            if 3 * size * some.itemsize > free_memory():  # input, its making, a map's result
                left_out.append(size)
                continue
            case = make_case(name, Layout((size // 1000, 1000)), dtype, values)
            runners = {"klce": Runner(_way(case, setting.threads))}
            times[size] = median(take_turns(runners, setting.rounds)["klce"]) / size
            del case, runners
        value = max(times.values()) / min(times.values())
        unit = f"slowest over fastest, {min(times):.0e} to {max(times):.0e} elements"
        line = make_line("growth", f"{name} {dtype}", value, unit, targets.GROWTH, True)
        line["ns per element"] = {str(size): value * 1e9 for size, value in times.items()}
        line["does not fit into memory"] = left_out
        result.append(line)
    return result


def free_memory() -> int:
    """Return the bytes that this machine can give."""
    with contextlib.suppress(OSError):
        for row in Path("/proc/meminfo").read_text().splitlines():
            if row.startswith("MemAvailable:"):
                return int(row.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


PARTS: dict[str, Callable[[Setting], list[Line]]] = {
    "overhead": overhead,
    "scaling": scaling,
    "import": imports,
    "classes": classes,
    "special": special,
    "growth": growth,
}
