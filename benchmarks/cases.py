"""What is raced: the operations, the layouts and dtypes of their input, and the input itself.

Nothing here knows a contestant: ``peers/`` holds one file for each, klce among them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import klce
from klce import reference

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float64", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")
IGNORED = -100


@dataclass(frozen=True)
class Layout:
    """The shape of an array of rows, and the axis of their classes."""

    shape: tuple[int, ...]
    axis: int = -1

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read what :attr:`name` writes: ``8192x1000``, or ``64x1000x128@1`` for axis 1."""
        sizes, _, axis = text.partition("@")
        shape = tuple(int(size) for size in sizes.split("x"))
        number = int(axis) if axis else -1
        if len(shape) < 2 or min(shape) < 1 or not -len(shape) <= number < len(shape):
            raise ValueError(f"a shape must look like 8192x1000 or 64x1000x128@1, got {text!r}")
        return cls(shape, -1 if number == len(shape) - 1 else number)

    @property
    def name(self) -> str:
        """The sizes, and the axis unless it is the last one."""
        return "x".join(map(str, self.shape)) + ("" if self.axis == -1 else f"@{self.axis}")

    @property
    def classes(self) -> int:
        """How many classes a row has."""
        return self.shape[self.axis]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape without the classes."""
        return tuple(np.delete(self.shape, self.axis).tolist())

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(np.prod(self.row_shape))

    @property
    def elements(self) -> int:
        """How many elements there are."""
        return int(np.prod(self.shape))

    def head(self, rows: int) -> Layout:
        """Return the layout of at most that many of the first rows on the axis that has most."""
        shape, cut = list(self.shape), self.longest_row_axis
        shape[cut] = min(shape[cut], rows)
        return Layout(tuple(shape), self.axis)

    @property
    def longest_row_axis(self) -> int:
        """The axis, other than that of the classes, that is best cut to share out rows."""
        classes = self.axis % len(self.shape)
        others = [axis for axis in range(len(self.shape)) if axis != classes]
        return max(others, key=lambda axis: self.shape[axis])


# The small table, and the grid.  In the grid, 1024x128256 is out of cache, and 8192 rows of 1000
# classes come with their classes on the last axis, the first and the middle one.
SHAPES = tuple(map(Layout.parse, ("65536x10", "8192x1000", "64x128256")))
GRID = tuple(
    map(
        Layout.parse,
        (
            "1x10",
            "1x128256",
            "100000x3",
            "65536x10",
            "65536x32",
            "8192x1000",
            "256x32000",
            "64x128256",
            "1024x128256",
            "16x1000000",
            "1000x8192@0",
            "64x1000x128@1",
        ),
    )
)
OUT_OF_CACHE = Layout((1024, 128256))
OUT_OF_CACHE_HALVES = Layout((4096, 128256))  # halves take half the bytes, or less


def grid(dtype: str) -> tuple[Layout, ...]:
    """Return the grid's layouts for a dtype."""
    if dtype not in HALVES:
        return GRID
    return tuple(OUT_OF_CACHE_HALVES if layout == OUT_OF_CACHE else layout for layout in GRID)


@dataclass(frozen=True)
class Op:
    """An operation: a function of klce's, the form of its input, and the option that is on."""

    function: str
    form: str = "logits"
    inputs: int = 1
    target: str = ""  # "index", or "soft" for a distribution
    result: str = "rows"  # or "map", of the input's shape, or "scalar"
    option: str = ""  # that is an array, or shows in one (ignore_index in the target)
    keywords: Mapping[str, Any] = field(default_factory=dict)


def _loss(option: str = "", result: str = "scalar", **keywords: Any) -> Op:
    return Op("cross_entropy", "logits", 1, "index", result, option, keywords)


OPS: dict[str, Op] = {
    "logsumexp": Op("logsumexp"),
    "softmax": Op("softmax", result="map"),
    "log_softmax": Op("log_softmax", result="map"),
    "cross_entropy": _loss(),
    "cross_entropy none": _loss(result="rows", reduction="none"),
    "entropy probs": Op("entropy", form="probs"),
    "entropy logits": Op("entropy"),
    "kl probs": Op("kl_divergence", form="probs", inputs=2),
    "kl logits": Op("kl_divergence", inputs=2),
    "js probs": Op("js_divergence", form="probs", inputs=2),
    "js logits": Op("js_divergence", inputs=2),
    "nll_loss": Op("nll_loss", form="log_probs", target="index", result="scalar"),
    "cross_entropy weight": _loss("weight"),
    "cross_entropy ignore_index": _loss("ignore_index"),
    "cross_entropy label_smoothing": _loss(label_smoothing=0.1),
    "cross_entropy z_loss": _loss(z_loss=1e-4),
    "cross_entropy temperature": _loss(temperature=0.7),
    "cross_entropy base": _loss(base=2),
    "cross_entropy sample_weight": _loss("sample_weight"),
    "cross_entropy where": _loss("where"),
    "cross_entropy soft": Op("cross_entropy", target="soft", result="scalar"),
}
#: What the small table shows.
BASICS = (
    "logsumexp",
    "softmax",
    "log_softmax",
    "cross_entropy none",
    "entropy probs",
    "entropy logits",
    "kl probs",
    "kl logits",
)

_OF_FORMS = ("entropy", "kl_divergence", "js_divergence")

# Makes an input of a layout, a dtype, a form and a seed.
Values = Callable[[Layout, str, str, int], Array]

# Relative to the result, plus as much of the results' mean.  Peers are given what their accuracy
# needs: rounding x - max alone costs them 32 ULP, and in half types they round every step.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10, "float16": 2e-2, "bfloat16": 1e-1}
KLCE_TOLERANCES = {"float32": 2e-6, "float64": 1e-13, "float16": 1e-3, "bfloat16": 8e-3}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of that name; ImportError if bfloat16's package is not installed."""
    if name == "bfloat16":
        name = importlib.import_module("ml_dtypes").bfloat16
    return np.dtype(name)


@functools.lru_cache(maxsize=2)  # two inputs of the largest layouts are some gigabytes
def random_values(layout: Layout, dtype: str, form: str, seed: int) -> Array:
    """Return an input: logits at scale 3, or what softmax or log-softmax makes of them."""
    wide = np.float64 if dtype == "float64" else np.float32
    values = np.random.default_rng(seed).standard_normal(layout.shape, dtype=wide)
    # Half types have no room for the tail of 128256 classes at scale 3: below 6e-8 is nothing.
    values *= wide(0.5 if form == "probs" and dtype in HALVES else 3)
    if form != "logits":
        function = klce.softmax if form == "probs" else klce.log_softmax
        function(values, layout.axis, out=values)
    return values.astype(numpy_dtype(dtype), copy=False)


def forget() -> None:
    """Give back the memory of all input that was made."""
    random_values.cache_clear()


@dataclass(frozen=True)
class Case:
    """One operation on one input: what every contestant gets."""

    name: str  # the operation's
    op: Op
    layout: Layout
    dtype: str
    inputs: tuple[Array, ...]
    target: Array | None
    extras: Mapping[str, Array]  # options that hold an array

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Every array that goes in: the inputs, the target, the options that hold one."""
        targets = () if self.target is None else (self.target,)
        return (*self.inputs, *targets, *self.extras.values())

    @property
    def floats(self) -> tuple[Array, ...]:
        """What has to be read element by element, and so sets the limit of memory."""
        if self.op.target == "soft" and self.target is not None:
            return (*self.inputs, self.target)
        return self.inputs

    @property
    def spacing(self) -> float:
        """What two roundings may differ by near 0: one of 128256 float16 has few digits, if any."""
        return 2.0**-24 if self.dtype == "float16" and self.op.result == "map" else 0.0

    @property
    def title(self) -> str:
        """Operation, layout and dtype."""
        return f"{self.name} {self.layout.name} {self.dtype}"

    def head(self, rows: int) -> Case:
        """Return the case of some of its rows alone."""
        layout = self.layout.head(rows)
        sizes = layout.shape
        row_sizes = layout.row_shape

        def cut(array: Array) -> Array:
            if array.shape == self.layout.shape:
                return array[tuple(map(slice, sizes))]
            if array.shape == self.layout.row_shape:
                return array[tuple(map(slice, row_sizes))]
            return array  # of the classes

        return Case(
            self.name,
            self.op,
            layout,
            self.dtype,
            tuple(map(cut, self.inputs)),
            None if self.target is None else cut(self.target),
            {
                name: array if name == "weight" else cut(array)
                for name, array in self.extras.items()
            },
        )

    def call(self, function: Any, *arrays: Array) -> functools.partial[Any]:
        """Return the call of klce's function, or its specification's, on these arrays."""
        keywords = dict(self.op.keywords)
        if self.op.function in _OF_FORMS:
            keywords["form"] = self.op.form
        count = len(arrays) - len(self.extras)
        keywords |= zip(self.extras, arrays[count:], strict=True)
        return functools.partial(function, *arrays[:count], axis=self.layout.axis, **keywords)


def make_case(name: str, layout: Layout, dtype: str, values: Values = random_values) -> Case:
    """Return the case of the op of that name, on random input unless `values` makes another."""
    op = OPS[name]
    inputs = tuple(values(layout, dtype, op.form, seed) for seed in range(op.inputs))
    generator = np.random.default_rng(9)
    target: Array | None = None
    extras: dict[str, Array] = {}
    if op.target == "index":
        target = generator.integers(0, layout.classes, layout.row_shape)
    elif op.target == "soft":
        target = values(layout, dtype, "probs", 7)
    if op.option == "ignore_index":
        assert target is not None
        target[generator.random(layout.row_shape) < 0.1] = IGNORED
    elif op.option == "weight":
        extras["weight"] = generator.uniform(0.5, 1.5, layout.classes).astype(numpy_dtype(dtype))
    elif op.option == "sample_weight":
        weights = generator.uniform(0.5, 1.5, layout.row_shape)
        extras["sample_weight"] = weights.astype(numpy_dtype(dtype))
    elif op.option == "where":
        assert target is not None
        where = generator.random(layout.shape, np.float32) < 0.9
        np.put_along_axis(where, np.expand_dims(target, layout.axis), True, layout.axis)
        extras["where"] = where
    return Case(name, op, layout, dtype, inputs, target, extras)


def make_cases(
    names: Sequence[str], layouts: Sequence[Layout], dtypes: Sequence[str]
) -> Iterator[Case]:
    """Yield the cases; one layout's input in one dtype is alive at a time."""
    for dtype in dtypes:
        for layout in layouts:
            for name in names:
                yield make_case(name, layout, dtype)
            forget()


def difference(result: Array, expected: Array, tolerance: float, spacing: float = 0.0) -> float:
    """Return how far a result is off, in tolerances: above 1 it is another result.

    The spacing is that of numbers near 0, where rounding is no longer relative.
    """
    result, expected = np.asarray(result), np.asarray(expected)
    if result.shape != expected.shape:
        return float("inf")
    worst = 0.0
    scale = float(np.mean(np.abs(expected), dtype=np.float64))
    flat, wanted = result.reshape(-1), expected.reshape(-1)
    for start in range(0, flat.size, 1 << 22):  # in parts: whole arrays of float64 may not fit
        part = slice(start, start + (1 << 22))
        a, b = flat[part].astype(np.float64), wanted[part].astype(np.float64)
        with np.errstate(invalid="ignore"):
            off = np.abs(a - b) / (tolerance * (np.abs(b) + scale) + spacing)
        off[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
        worst = max(worst, float(np.max(np.where(np.isnan(off), np.inf, off))))
    return worst


class WrongError(Exception):
    """klce's result is not what its specification says."""


def check_klce(case: Case) -> None:
    """Raise WrongError unless klce agrees with its specification on some of the rows."""
    few = case.head(8)
    result = few.call(getattr(klce, few.op.function), *few.arrays)()
    wide = [a.astype(np.float64) if a.dtype.kind not in "ib" else a for a in few.arrays]
    expected = few.call(getattr(reference, few.op.function), *wide)()
    off = difference(result, expected, KLCE_TOLERANCES[case.dtype], case.spacing)
    if not off <= 1:
        raise WrongError(f"{case.title}: klce is {off:.3g} tolerances from its specification")
