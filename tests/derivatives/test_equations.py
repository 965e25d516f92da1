"""Differentials of the equations: against finite differences, against their adjoints, and through PyTorch and JAX."""

from typing import NamedTuple

import numpy as np
import pytest

import matsign
from matrices import adjoint, definite, gaussian, stable
from matsign import backends
from matsign.engine.rules import Step

KINDS = ("float64", "complex128")
be = backends.load("numpy")


class Case(NamedTuple):
    """A function, arguments for it, None for those left out, options, and which of the arguments are Hermitian."""

    name: str
    make: object
    options: dict
    hermitian: tuple = ()

    def step(self, arguments):
        declaration = getattr(matsign, self.name).declaration
        options = {**declaration.options, **self.options}
        return Step(declaration.rule, tuple(x is not None for x in arguments), tuple(sorted(options.items())))

    def stacked(self, rng, kind, count=2):
        """Arguments with a leading axis, and moves of them."""
        members = [self.make(rng, kind) for _ in range(count)]
        arguments = tuple(None if x[0] is None else np.stack(x) for x in zip(*members, strict=True))
        moves = [None if x is None else gaussian(rng, *x.shape, dtype=kind) for x in arguments]
        for k in self.hermitian:
            moves[k] = moves[k] + adjoint(moves[k])
        return arguments, tuple(moves)

    def __str__(self):
        return "-".join([self.name, *map(str, self.options.values())])


def _inside(rng, kind, n=4):
    a = gaussian(rng, n, n, dtype=kind)
    return 0.7 * a / abs(np.linalg.eigvals(a)).max()


def _mixed(rng, kind, n=4):
    return stable(rng, n, kind) + np.diag([6.0, *[0] * (n - 1)])


def _square(rng, kind, n=4):
    return gaussian(rng, n, n, dtype=kind)


def _riccati(sign):
    def make(rng, kind, n=3, m=2):
        a, b = -stable(rng, n, kind), stable(rng, m, kind)
        c, d = (0.1 * gaussian(rng, *s, dtype=kind) for s in ((n, m), (m, n)))
        return tuple(sign * x for x in (a, b, c, d))

    return make


def _plant(with_e, with_s, order="abqres", n=4, m=2):
    def make(rng, kind):
        cost = definite(rng, n + m, dtype=kind)
        p = {
            "a": gaussian(rng, n, n, dtype=kind) / 2,
            "b": gaussian(rng, n, m, dtype=kind),
            "q": cost[:n, :n],
            "r": cost[n:, n:],
            "e": np.eye(n) + 0.1 * gaussian(rng, n, n, dtype=kind) if with_e else None,
            "s": cost[:n, n:] if with_s else None,
        }
        return tuple(p[k] for k in order)

    return make


EQUATIONS = [
    Case(
        "solve_sylvester",
        lambda rng, kind: (stable(rng, 4, kind), stable(rng, 3, kind), gaussian(rng, 4, 3, dtype=kind)),
        {},
    ),
    Case(
        "solve_continuous_lyapunov", lambda rng, kind: (stable(rng, 4, kind), _square(rng, kind)), {"method": "newton"}
    ),
    Case("solve_continuous_lyapunov", lambda rng, kind: (_mixed(rng, kind), _square(rng, kind)), {}),
    Case("solve_discrete_lyapunov", lambda rng, kind: (_inside(rng, kind), _square(rng, kind)), {}),
    Case("solve_discrete_lyapunov", lambda rng, kind: (2.1 * _inside(rng, kind), _square(rng, kind)), {"method": None}),
    Case("solve_riccati", _riccati(1), {"half_plane": "right"}),
    Case("solve_riccati", _riccati(-1), {"half_plane": "left"}),
    *(
        Case(name, _plant(e, s), {"balanced": e}, (2, 3))
        for name in ("solve_continuous_are", "solve_discrete_are")
        for e in (False, True)
        for s in (False, True)
    ),
]

REGULATORS = [
    Case(name, _plant(e, s, "abqrse"), {}, (2, 3))
    for name in ("lqr", "dlqr")
    for e, s in ((False, False), (True, True))
]
FACTORS = [
    Case("lyapunov_factor", lambda rng, kind: (-stable(rng, 4, kind), gaussian(rng, 4, 2, dtype=kind)), {}),
    Case("discrete_lyapunov_factor", lambda rng, kind: (_inside(rng, kind), gaussian(rng, 4, 2, dtype=kind)), {}),
]
CASES = EQUATIONS + REGULATORS

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_kind = pytest.mark.parametrize("kind", KINDS)


def difference(f, arguments, moves, h=2e-4):
    """The derivative of f at 0 along the moves, by central differences of sixth order."""

    def at(t):
        return f(*(None if x is None else x + t * h * d for x, d in zip(arguments, moves, strict=True)))

    return [
        sum(w * (p - m) for w, p, m in zip((45, -9, 1), plus, minus, strict=True)) / (60 * h)
        for plus, minus in (
            (list(a), list(b))
            for a, b in zip(
                zip(*map(at, (1, 2, 3)), strict=True), zip(*map(at, (-1, -2, -3)), strict=True), strict=True
            )
        )
    ]


def valued(case, arguments):
    """The step, its value, and what it is called with."""
    step, given = case.step(arguments), [x for x in arguments if x is not None]
    return step, step(be, *given)[: len(step.rule.results)], given


def size(*xs):
    return sum(np.linalg.norm(x) for x in xs)


@every_case
@every_kind
def test_tangent_is_the_limit_of_differences(case, kind, rng):
    arguments, moves = case.stacked(rng, kind)
    step, value, given = valued(case, arguments)
    found = step.tangent(be, value, given, [x for x in moves if x is not None])
    expected = difference(lambda *xs: valued(case, xs)[1], arguments, moves)
    for x, y in zip(found, expected, strict=True):
        assert size(x - y) < 1e-8 * size(y)


@pytest.mark.parametrize("case", FACTORS, ids=str)
@pytest.mark.parametrize("reached", [4, 3])
@every_kind
def test_gramian_of_a_moved_factor(case, reached, kind, rng):
    (a, b), (da, db) = case.stacked(rng, kind)
    for x in (a, b, da, db):
        x[:, reached:] *= 0  # these states are driven by nothing
    a = a / 2 if "discrete" in case.name else a - 4 * np.eye(4)
    step, (z,), given = valued(case, (a, b))
    (dz,) = step.tangent(be, (z,), given, (da, db))

    def gramian(a, b):
        (z,) = valued(case, (a, b))[1]
        return (z @ adjoint(z),)

    (expected,) = difference(gramian, (a, b), (da, db))
    assert size(dz @ adjoint(z) + z @ adjoint(dz) - expected) < 1e-8 * size(expected)


@pytest.mark.parametrize("case", CASES + FACTORS, ids=str)
@every_kind
def test_cotangent_is_the_adjoint(case, kind, rng):
    arguments, _ = case.stacked(rng, kind)
    step, value, given = valued(case, arguments)
    moves = [gaussian(rng, *x.shape, dtype=kind) for x in given]
    bars = [gaussian(rng, *x.shape, dtype=x.dtype) for x in value]
    moved, pulled = step.tangent(be, value, given, moves), step.cotangent(be, value, given, bars)
    one, other = (
        [np.vdot(x, y).real for x, y in zip(xs, ys, strict=True)] for xs, ys in ((bars, moved), (pulled, moves))
    )
    assert abs(sum(one) - sum(other)) < 1e-12 * sum(map(abs, one + other))
