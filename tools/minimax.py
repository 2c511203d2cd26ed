"""Print the polynomial coefficients of src_c/ (needs mpmath).

Of ``vmath.h``, and of the ops that have their own: ``js_pairs.h``, ``js_probs_probs.h``,
``logit_pairs.h``, ``pair_terms.h`` and ``unlike.h``.

Each polynomial is a Remez minimax fit of the *relative* error of the whole expression that it
serves, not of the polynomial alone.  Run ``python tools/minimax.py``; the output holds the
coefficients, lowest power first, and log2 of the largest relative error before rounding to the
working precision.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]


def remez(
    f: Function, basis: Function, weight: Function, degree: int, low: mp.mpf, high: mp.mpf
) -> tuple[list[mp.mpf], mp.mpf]:
    """Fit ``basis(x) * sum_k c_k x^k`` to ``f(x)`` on [low, high], error weighted by ``weight``."""
    count = degree + 2
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (count - 1 - i) / (count - 1))
        for i in range(count)
    ]
    grid = [low + (high - low) * i / 4000 for i in range(4001)]
    grid = [x for x in grid if abs(x) > mp.mpf("1e-12")]
    coefficients: list[mp.mpf] = []
    for _ in range(12):
        a = mp.matrix(count, count)
        b = mp.matrix(count, 1)
        for i, x in enumerate(nodes):
            x = x if abs(x) > mp.mpf("1e-12") else mp.mpf("1e-12")
            for k in range(degree + 1):
                a[i, k] = weight(x) * basis(x) * x**k
            a[i, degree + 1] = (-1) ** i
            b[i] = weight(x) * f(x)
        solution = mp.lu_solve(a, b)
        coefficients = [solution[k] for k in range(degree + 1)]
        errors = [weight(x) * (f(x) - basis(x) * mp.polyval(coefficients[::-1], x)) for x in grid]
        # One extremum in each run of equal sign.
        extrema: list[tuple[mp.mpf, mp.mpf]] = []
        for x, e in zip(grid, errors, strict=True):
            if extrema and mp.sign(extrema[-1][1]) == mp.sign(e):
                if abs(e) > abs(extrema[-1][1]):
                    extrema[-1] = (x, e)
            else:
                extrema.append((x, e))
        while len(extrema) > count:
            extrema.pop(0 if abs(extrema[0][1]) < abs(extrema[-1][1]) else -1)
        if len(extrema) < count:
            break
        nodes = [x for x, _ in extrema]
    return coefficients, max(abs(e) for e in errors)


def report(name: str, fit: tuple[list[mp.mpf], mp.mpf], digits: int) -> None:
    coefficients, error = fit
    print(f"{name}: log2 of the largest relative error {float(mp.log(error, 2)):.2f}")
    print("   ", ", ".join(mp.nstr(c, digits) for c in coefficients))


def main() -> None:
    half = mp.log(2) / 2
    low, high = 1 / mp.sqrt(2) - 1, mp.sqrt(2) - 1
    # exp(r) = 1 + r + r^2 q(r)
    for name, degree, digits in (("exp f32", 4, 10), ("exp f64", 9, 18)):
        fit = remez(
            lambda r: mp.exp(r) - 1 - r,
            lambda r: r * r,
            lambda r: mp.exp(-r),
            degree,
            -half * mp.mpf("1.001"),
            half * mp.mpf("1.001"),
        )
        report(name, fit, digits)
    # f - log1p(f) = f^2 (1/2 - f q(f))
    fit = remez(
        lambda f: mp.mpf(1) / 2 * f * f - (f - mp.log1p(f)),
        lambda f: f**3,
        lambda f: 1 / (f - mp.log1p(f)),
        8,
        low,
        high,
    )
    report("log1p tail f32", fit, 10)
    # log1p(f) = 2s + s R(z), s = f/(2+f), z = s^2, R(z) = z q(z); the error relative to s
    top = (high / (2 + high)) ** 2
    fit = remez(
        lambda z: mp.log((1 + mp.sqrt(z)) / (1 - mp.sqrt(z))) / mp.sqrt(z) - 2,
        lambda z: z,
        lambda z: mp.mpf(1) / 2,
        6,
        mp.mpf("1e-10"),
        top,
    )
    report("log1p s-form f64", fit, 18)
    # The same for f from -1/3 to 1/2, |s| up to 1/5, the error relative to f - log1p(f)

    def tail(s: mp.mpf) -> mp.mpf:  # f - log1p(f), f = 2s/(1 - s)
        return 2 * s / (1 - s) - 2 * mp.atanh(s)

    for dtype, digits, degree in (("f32", 10, 3), ("f64", 18, 6)):
        fit = remez(
            lambda z: 2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2,
            lambda z: z,
            lambda z: mp.sqrt(z) / min(tail(mp.sqrt(z)), tail(-mp.sqrt(z))),
            degree,
            mp.mpf("1e-10"),
            mp.mpf("0.040001"),
        )
        report(f"log1p by square {dtype}", fit, digits)

    def one(_: mp.mpf) -> mp.mpf:
        return mp.mpf(1)

    # (1 - v) log(1 - v) + (1 + v) log(1 + v) = w q(w), w = v^2; beyond, u log(u) + of_larger(u),
    # u = 1 - |v|: js_probs_probs.h and js_pairs.h
    def even(w: mp.mpf) -> mp.mpf:
        v = mp.sqrt(w)
        series = 1 + w / 6 + w * w / 15
        return series if w < 1e-9 else ((1 - v) * mp.log(1 - v) + (1 + v) * mp.log(1 + v)) / w

    def of_larger(u: mp.mpf) -> mp.mpf:
        return (2 - u) * mp.log(2 - u)

    def of_both(u: mp.mpf) -> mp.mpf:
        return of_larger(u) + (u * mp.log(u) if u > 0 else 0)

    for dtype, digits, degrees, v in (
        ("f32", 10, (7, 5), mp.mpf("0.7")),
        ("f64", 18, (12, 13), mp.mpf(1) / 2),
    ):
        fit = remez(even, one, lambda w: 1 / even(w), degrees[0], mp.mpf(0), v * v)
        report(f"even {dtype}", fit, digits)
        top = (1 - v) * mp.mpf("1.00002")
        fit = remez(of_larger, one, lambda u: 1 / of_both(u), degrees[1], mp.mpf(0), top)
        report(f"of the larger {dtype}", fit, digits)

    # The terms of logit_pairs.h and pair_terms.h: of a slope up to 1, in float32 and for JS alone
    # 1.5, and of a ratio beyond.
    def bend(d: mp.mpf) -> mp.mpf:  # (exp(d) - 1 - d)/d^2
        return (mp.expm1(d) - d) / d**2 if abs(d) > 1e-9 else mp.mpf(1) / 2 + d / 6

    def near(d: mp.mpf) -> mp.mpf:  # (d exp(d) - (1 + exp(d)) log((1 + exp(d))/2))/d^2
        e = mp.exp(d)
        far = (d * e - (1 + e) * mp.log((1 + e) / 2)) / d**2 if d else mp.mpf(0)
        return far if abs(d) > 1e-9 else mp.mpf(1) / 4 + d / 8

    def mixed(t: mp.mpf) -> mp.mpf:
        return (1 + t) * mp.log(2 / (1 + t)) - mp.log(2)

    def js(t: mp.mpf) -> mp.mpf:  # twice a class's JS, over the larger of p and q
        return mp.log(2) + mixed(t) + (t * mp.log(t) if t > 0 else 0)

    near_fits = (
        (bend, "f32", 10, 7, 1), (near, "f32", 10, 7, 1), (near, "f32", 10, 10, 1.5),
        (bend, "f64", 18, 14, 1), (near, "f64", 18, 18, 1),
    )  # fmt: skip
    for f, dtype, digits, degree, most in near_fits:
        fit = remez(f, one, lambda d, f=f: 1 / f(d), degree, mp.mpf(-most), mp.mpf(most))
        report(f"{f.__name__} to {most} {dtype}", fit, digits)
    for dtype, digits, degree in (("f32", 10, 5), ("f64", 18, 13)):
        end = mp.exp(-1) * mp.mpf("1.00001")
        fit = remez(mixed, lambda t: t, lambda t: 1 / js(t), degree, mp.mpf(0), end)
        report(f"far {dtype}", fit, digits)

    # ((1 + t) log(2/(1 + t)) - log 2)/t of unlike.h; the error of t times it, absolute.
    for dtype, digits, degree in (("f32", 10, 7), ("f64", 18, 17)):
        fit = remez(mixed, lambda t: t, one, degree, mp.mpf(0), mp.mpf("1.00001"))
        report(f"unlike {dtype}", fit, digits)


if __name__ == "__main__":
    main()
