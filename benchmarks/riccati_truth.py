"""The solutions of all CAREX and DAREX cases in 400 bits, for tests/data/riccati.npz. Needs python-flint; takes minutes.

    python benchmarks/riccati_truth.py

Newton's method from matsign's solution, until a step changes nothing in 60 digits. Each step solves a Lyapunov equation by the
sign of the closed loop, or a Stein equation by doubling, and both converge only if the closed loop is stable. The stabilising
solution is unique: where the steps stop, no matter from where they came, is the answer. The largest case takes its steps in
double precision, from what is left of the equation in 400 bits: more of them, and each gains ten digits.
"""

import sys
from pathlib import Path

import numpy as np
from arguments import parser

import matsign

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import carex
import collection
import darex

try:
    import flint
except ImportError:
    flint = None

LARGE = 200  # from here on a few products are kept and not the solution


def exact(x):
    return flint.arb_mat(np.asarray(x, float).tolist())


def size(x):
    return max((abs(float(v)) for v in x.entries()), default=0.0)


def middle(x):
    return x.mid()


def eye(n):
    return flint.arb_mat(n, n, [int(i == j) for i in range(n) for j in range(n)])


def lyapunov(a, c):
    """d with aᵀ d + d a + c = 0; raises where a is not stable."""
    half, minus = flint.arb(1) / 2, -eye(a.nrows())
    for _ in range(400):
        inverse = middle(a.inv())
        mu = flint.arb((size(inverse) / size(a)) ** 0.5)
        mu = mu if size(a - minus) > 0.1 else flint.arb(1)
        c = middle((c * mu + inverse.transpose() * c * inverse * (1 / mu)) * half)
        a = middle((a * mu + inverse * (1 / mu)) * half)
        if size(a - minus) < 1e-90:
            return c * half
    raise ArithmeticError("not stable")


def stein(a, c):
    """d with aᵀ d a - d + c = 0; raises where a is not stable."""
    for _ in range(60):
        c = middle(c + a.transpose() * c * a)
        a = middle(a * a)
        if size(a) < 1e-60:
            return middle(c + a.transpose() * c * a)
        if size(a) > 1e60:
            break
    raise ArithmeticError("not stable")


def in_doubles(a, c):
    """d with aᵀ d + d a + c = 0, nearly; raises where a is not stable."""
    scale = size(c)  # the last ones are too small for a double
    if not scale:
        return c
    a, c = doubles(a), doubles(c * (1 / flint.arb(scale)))
    if np.linalg.eigvals(a).real.max() >= 0:
        raise ArithmeticError("not stable")
    return exact(matsign.solve_continuous_lyapunov(a.T, -(c + c.T) / 2)) * flint.arb(scale)


def newton(case, x):
    """(what is left of the equation, closed loop) at x."""
    a, b, q, r = (exact(m) for m in case.plant[:4])
    inner = b.transpose() * (x * a if case.discrete else x)
    if case.s is not None:
        inner = inner + exact(case.s).transpose()
    gain = middle((r + b.transpose() * x * b if case.discrete else r).solve(inner))
    paid, closed = gain.transpose() * inner, a - b * gain
    if case.discrete:
        gap = middle(a.transpose() * x * a - x + q - paid)
    else:
        gap = middle(a.transpose() * x + x * a + q - paid)
    return gap, closed


def solution(case):
    """The stabilising solution in 400 bits."""
    if (
        case.name == "CAREX 11, ε = 0"
    ):  # no Newton there: a double eigenvalue on the axis, but a solution in whole numbers
        x = exact([[2, 1], [1, 1]])
        assert size(newton(case, x)[0]) == 0
        return x
    solve = matsign.solve_discrete_are if case.discrete else matsign.solve_continuous_are
    x = exact(solve(*case.plant))
    for _ in range(60):
        gap, closed = newton(case, x)
        step = (in_doubles if len(case.a) >= LARGE else stein if case.discrete else lyapunov)(middle(closed), gap)
        x = middle(x + (step + step.transpose()) * (flint.arb(1) / 2))
        if size(step) <= 1e-60 * size(x):
            return x
    raise ArithmeticError("Newton does not settle")


def doubles(x):
    return np.array([[float(v) for v in row] for row in x.tolist()]).reshape(x.nrows(), x.ncols())


def main():
    options = parser(__doc__)
    options.parse_args()
    if flint is None:
        options.error("python-flint is not installed")
    flint.ctx.prec = 400
    with np.load(collection.DATA) as data:
        kept = {name: x for name, x in data.items() if name.rsplit("/")[-1] in "abqrs"}
    rng = np.random.default_rng(0)
    for case in [*darex.cases(), *carex.cases()]:
        x = solution(case)
        if len(case.a) >= LARGE:
            bits = rng.integers(0, 256, (len(case.a), 1), np.uint8)
            signs = np.unpackbits(bits, axis=1, count=8) * 2.0 - 1
            kept[case.name + "/signs"], kept[case.name + "/product"] = bits, doubles(x * exact(signs))
        else:
            kept[case.name + "/x"] = collection.packed(doubles(x))
        print(case.name, flush=True)
    np.savez_compressed(collection.DATA, **kept)


if __name__ == "__main__":
    main()
