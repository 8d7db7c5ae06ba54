"""Print the coefficient tables of src/activations.h and their relative errors.

Interpolation at Chebyshev points in 60 digits: near-minimax, and good enough wherever the
error stays below half a unit in the last place of the result. Needs mpmath.
"""

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]


def fit(f: Function, low: mp.mpf, high: mp.mpf, degree: int) -> tuple[list[mp.mpf], mp.mpf]:
    """Coefficients, constant term first, and the largest relative error on [low, high]."""
    n = degree + 1
    middle, radius = (low + high) / 2, (high - low) / 2
    points = [middle + radius * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    vandermonde = mp.matrix([[x**j for j in range(n)] for x in points])
    c = list(mp.lu_solve(vandermonde, mp.matrix([f(x) for x in points])))
    grid = [low + (high - low) * mp.mpf(i) / 997 for i in range(1, 997)]
    return c, max(abs(mp.polyval(c[::-1], x) / f(x) - 1) for x in grid)


def expm1_tail(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r^2, as a hypergeometric function that has no hole at 0."""
    return mp.hyp1f1(1, 3, r) / 2


def log1p_tail(s2: mp.mpf) -> mp.mpf:
    """(log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2."""
    return mp.hyp2f1(1, mp.mpf(3) / 2, mp.mpf(5) / 2, s2) * 2 / 3


def central(x2: mp.mpf) -> mp.mpf:
    """(P(X < x) - 1/2) / x of a normal X, in x^2."""
    return mp.hyp1f1(mp.mpf(1) / 2, mp.mpf(3) / 2, -x2 / 2) / mp.sqrt(2 * mp.pi)


def mills(t: mp.mpf) -> mp.mpf:
    """(a + 5) e^(a^2/2) P(X > a) in t = (a - 5) / (a + 5)."""
    a = 5 * (1 + t) / (1 - t)
    return (a + 5) * mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


def main() -> None:
    half_log2 = mp.log(2) / 2 * mp.mpf("1.0005")
    s = (3 - 2 * mp.sqrt(2)) * mp.mpf("1.0005")
    for name, f, low, high, degree in (
        ("expm1_tail f32", expm1_tail, -half_log2, half_log2, 5),
        ("expm1_tail f64", expm1_tail, -half_log2, half_log2, 10),
        ("log1p_tail f32", log1p_tail, mp.mpf(0), s**2, 3),
        ("log1p_tail f64", log1p_tail, mp.mpf(0), s**2, 7),
        ("central f32", central, mp.mpf(0), mp.mpf("0.5625"), 5),
        ("central f64", central, mp.mpf(0), mp.mpf("0.5625"), 9),
        ("mills f32", mills, mp.mpf(-1), mp.mpf(10) / 20, 11),
        ("mills f64", mills, mp.mpf(-1), mp.mpf(34) / 44, 23),
    ):
        c, error = fit(f, mp.mpf(low), mp.mpf(high), degree)
        print(f"{name}: relative error 2^{mp.nstr(mp.log(error, 2), 3)}")
        print("   ", ", ".join(mp.nstr(x, 20) for x in c))


if __name__ == "__main__":
    main()
