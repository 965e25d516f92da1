"""Differentials of the equations: against finite differences, against their adjoints, and through PyTorch and JAX."""

from typing import NamedTuple

import numpy as np
import pytest

import matsign
import truth
from conftest import HAVE
from gradients import assert_differentiates_twice
from keyword_arrays import by_position
from matrices import adjoint, definite, gaussian, stable
from matsign import backends
from matsign.core.operations import BoundOperation

if HAVE["jax"]:
    import jax

KINDS = ("float64", "complex128")
backend = backends.load("numpy")


class Case(NamedTuple):
    """A function, arguments for it, None for those left out, options, and which of the arguments are Hermitian."""

    name: str
    make: object
    options: dict
    hermitian: tuple = ()

    def step(self, arguments):
        spec = getattr(matsign, self.name).spec
        options = {**spec.parameters.options, **self.options}
        given = [x is not None for x in arguments]
        given += [False] * (
            len(spec.operation.letters) - len(given)
        )  # arguments of a case may end before optional ones
        return BoundOperation(spec.operation, tuple(given), tuple(sorted(options.items())))

    def stacked(self, rng, kind, count=2):
        """Arguments with a leading axis, and moves of them."""
        members = [self.make(rng, kind) for _ in range(count)]
        arguments = tuple(None if x[0] is None else np.stack(x) for x in zip(*members, strict=True))
        tangents = [None if x is None else gaussian(rng, *x.shape, dtype=kind) for x in arguments]
        for k in self.hermitian:
            tangents[k] = tangents[k] + adjoint(tangents[k])
        return arguments, tuple(tangents)

    @property
    def complete(self):
        """Whether no argument is left out."""
        return all(x is not None for x in self.make(np.random.default_rng(0), "float64"))

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


def _plant(with_e, with_s, order="abqres", n=4, m=2, shift=0.0):
    def make(rng, kind):
        cost = definite(rng, n + m, dtype=kind)
        p = {
            "a": gaussian(rng, n, n, dtype=kind) / 2 + shift * np.eye(n),
            "b": gaussian(rng, n, m, dtype=kind),
            "q": cost[:n, :n],
            "r": cost[n:, n:],
            "e": np.eye(n) + 0.1 * gaussian(rng, n, n, dtype=kind) if with_e else None,
            "s": cost[:n, n:] if with_s else None,
        }
        return tuple(p[k] for k in order)

    return make


def _finite_horizon(with_s):
    def make(rng, kind):
        *plant, s = _plant(False, with_s, "abqrs", n=3)(rng, kind)
        return *plant, definite(rng, 3, dtype=kind), s

    return make


def _with_g(rng, kind):
    """An indefinite g in place of b and r, with an estimate, in the order of `by_position`."""
    a, b, q, _, e, _ = _plant(True, False)(rng, kind)
    g = b @ b.conj().T - 1e-4 * np.eye(len(a))
    return a, None, q, None, e, None, (g + g.conj().T) / 2, np.eye(len(a)) + 0 * a


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
    Case(
        "solve_discrete_sylvester",
        lambda rng, kind: (_inside(rng, kind), 2 * _inside(rng, kind, 3), gaussian(rng, 4, 3, dtype=kind)),
        {},
    ),
    Case(
        "solve_generalized_sylvester",
        lambda rng, kind: tuple(gaussian(rng, *s, dtype=kind) for s in ((3, 3), (2, 2), (3, 3), (2, 2), (3, 2))),
        {},
    ),
    Case(
        "solve_sylvester_pair",
        lambda rng, kind: tuple(
            gaussian(rng, *s, dtype=kind) for s in ((3, 3), (2, 2), (3, 2), (3, 3), (2, 2), (3, 2))
        ),
        {},
    ),
    Case("solve_riccati", _riccati(1), {"half_plane": "right"}),
    Case("solve_riccati", _riccati(-1), {"half_plane": "left"}),
    *(
        Case(name, _plant(e, s), {"balanced": e}, (2, 3))
        for name in ("solve_continuous_are", "solve_discrete_are")
        for e in (False, True)
        for s in (False, True)
    ),
    Case("solve_continuous_are", _plant(True, True), {"half_plane": "right"}, (2, 3)),
    Case("solve_differential_riccati", _finite_horizon(True), {"t": 0.7}, (2, 3, 4)),
    Case("solve_continuous_are", _with_g, {}, (2, 6)),
    Case("solve_discrete_are", _with_g, {}, (2, 6)),
    Case("extremal_solutions", _plant(True, True), {}, (2, 3)),
    Case("discrete_extremal_solutions", _plant(True, True, shift=2.0), {}, (2, 3)),
    Case("solve_discrete_are", _plant(True, True, shift=2.0), {"circle": "outside"}, (2, 3)),
    Case("solve_discrete_are", _plant(False, False, shift=2.0), {"circle": "outside"}, (2, 3)),
]

REGULATORS = [
    Case(name, _plant(e, s, "abqrse"), {}, (2, 3))
    for name in ("lqr", "dlqr")
    for e, s in ((False, False), (True, True))
]
REGULATORS.append(Case("lqr_finite_horizon", _finite_horizon(True), {"t": 2.0}, (2, 3, 4)))


def _time_varying(rng, kind):
    """Two steps, an s and a weight at the end."""
    plants = [_finite_horizon(True)(rng, kind) for _ in range(2)]
    a, b, q, r, end, s = (np.stack(x) for x in zip(*plants, strict=True))
    return a, b, q, r, end[0], s


REGULATORS.append(Case("dlqr_time_varying", _time_varying, {}, (2, 3, 4)))
REGULATORS.append(Case("dlqr_finite_horizon", _finite_horizon(True), {"steps": 2}, (2, 3, 4)))


def _noisy(with_nn):
    def make(rng, kind, n=3, w=2, p=2):
        covariance = definite(rng, w + p, dtype=kind)
        a, g, c = (gaussian(rng, *s, dtype=kind) / 2 for s in ((n, n), (n, w), (p, n)))
        return a, g, c, covariance[:w, :w], covariance[w:, w:], covariance[:w, w:] if with_nn else None

    return make


ESTIMATORS = [
    Case("lqe", _noisy(True), {}, (3, 4)),
    Case("lqe", _noisy(False), {}, (3, 4)),
    Case("dlqe", _noisy(True), {}, (3, 4)),
    Case("dlqe", _noisy(True), {"gain": "filter"}, (3, 4)),
]
FACTORS = [
    Case("lyapunov_factor", lambda rng, kind: (-stable(rng, 4, kind), gaussian(rng, 4, 2, dtype=kind)), {}),
    Case("discrete_lyapunov_factor", lambda rng, kind: (_inside(rng, kind), gaussian(rng, 4, 2, dtype=kind)), {}),
]


def _system(rng, kind, n=4):
    a, b, c = -stable(rng, n, kind), gaussian(rng, n, 2, dtype=kind), gaussian(rng, 2, n, dtype=kind)
    return a - 3 * np.eye(n), b, c


def _inner_system(rng, kind, n=4):
    return _inside(rng, kind, n), *_system(rng, kind, n)[1:]


GRAMIANS = [
    Case("gramian", lambda rng, kind: _system(rng, kind)[:2], {}),
    Case("discrete_gramian", lambda rng, kind: _inner_system(rng, kind)[:2], {}),
]
NORMS = [
    Case("h2_norm", _system, {}),
    Case("discrete_h2_norm", lambda rng, kind: (*_inner_system(rng, kind), gaussian(rng, 2, 2, dtype=kind)), {}),
    Case("discrete_h2_norm", lambda rng, kind: (*_inner_system(rng, kind), None), {}),
]


def _resonant(discrete, with_d=True):
    """A model whose largest gain is at a frequency between the ends of the axis."""

    def make(rng, kind, n=3):
        a = np.zeros((n, n), kind)
        a[:2, :2], a[2, 2] = [[-0.5, 3], [-3, -0.5]], -2
        a = a + 0.1 * gaussian(rng, n, n, dtype=kind)
        if discrete:
            a = np.linalg.solve(4 * np.eye(n) - a, 4 * np.eye(n) + a)
        b, c = gaussian(rng, n, 2, dtype=kind) + np.eye(n, 2), gaussian(rng, 2, n, dtype=kind) + np.eye(2, n)
        return a, b, c, 0.1 * gaussian(rng, 2, 2, dtype=kind) if with_d else None

    return make


def _with_direct_term(shift):
    """A model of two states with one input and output, not stable without a shift."""

    def make(rng, kind):
        a, b, c, d = (gaussian(rng, *s, dtype=kind) for s in ((2, 2), (2, 1), (1, 2), (1, 1)))
        return a - shift * np.eye(2, dtype=kind), b, c, d

    return make


def _with_d(discrete, unstable=False):
    """A model with direct terms, also one with a pole that is not stable."""

    def make(rng, kind):
        d = gaussian(rng, 2, 2, dtype=kind)
        a, b, c = _inner_system(rng, kind) if discrete else _system(rng, kind)
        if unstable:
            a[:, 0], a[0, 0] = 0, 1.5
        return a, b, c, d, None

    return make


REDUCTIONS = [
    Case(
        "minimal_realization",
        lambda rng, kind: tuple(gaussian(rng, *s, dtype=kind) for s in ((2, 2), (2, 1), (1, 2), (1, 1))),
        {},
    ),
    Case("hankel_singular_values", _system, {}),
    Case("lqg_balanced_truncation", _with_direct_term(0), {"order": 1}),
    Case("bounded_real_balanced_truncation", _with_direct_term(5), {"order": 1, "gamma": 20}),
    Case("hankel_singular_values", _inner_system, {"dt": 0.1}),
    Case("balanced_truncation", _system, {"order": 2}),
    Case("balanced_truncation", _system, {"order": 4}),
    Case("balanced_truncation", _with_d(True), {"order": 2, "dt": 0.1}),
    Case("balanced_truncation", _with_d(False), {"order": 2, "method": "matchdc"}),
    Case("balanced_truncation", _with_d(True), {"order": 2, "dt": 0.1, "method": "matchdc"}),
    Case("balanced_truncation", _with_d(False, unstable=True), {"order": 2}),
    Case("balanced_truncation", _with_d(True, unstable=True), {"order": 3, "dt": 0.1, "method": "matchdc"}),
]
PEAKS = [
    Case("hinf_norm", _resonant(False), {}),
    Case("hinf_norm", _resonant(False, with_d=False), {}),
    Case("discrete_hinf_norm", _resonant(True), {}),
]


def _with_e(make):
    """The arguments with a descriptor behind them, by which a is multiplied."""

    def with_e(rng, kind):
        a, second, *rest = make(rng, kind)
        e = np.eye(len(a)) + 0.2 * gaussian(rng, *a.shape, dtype=kind)
        return e @ a, second, *rest, e

    return with_e


RICCATI_FACTOR = Case(
    "riccati_factor", lambda rng, kind: tuple(gaussian(rng, *s, dtype=kind) for s in ((4, 4), (4, 2), (4, 4))), {}
)
FACTORS = [RICCATI_FACTOR, *FACTORS, *(Case(case.name, _with_e(case.make), {}) for case in FACTORS)]
DESCRIPTORS = [
    Case("solve_continuous_lyapunov", _with_e(lambda rng, kind: (_mixed(rng, kind, 3), _square(rng, kind, 3))), {}),
    Case("solve_discrete_lyapunov", _with_e(lambda rng, kind: (_inside(rng, kind, 3), _square(rng, kind, 3))), {}),
    Case("gramian", _with_e(lambda rng, kind: _system(rng, kind, 3)[:2]), {}),
    Case("discrete_gramian", _with_e(lambda rng, kind: _inner_system(rng, kind, 3)[:2]), {}),
    Case("h2_norm", _with_e(lambda rng, kind: _system(rng, kind, 3)), {}),
    Case(
        "discrete_h2_norm",
        _with_e(lambda rng, kind: (*_inner_system(rng, kind, 3), gaussian(rng, 2, 2, dtype=kind))),
        {},
    ),
    Case("hinf_norm", _with_e(_resonant(False)), {}),
    Case("discrete_hinf_norm", _with_e(_resonant(True)), {}),
    Case("hankel_singular_values", _with_e(lambda rng, kind: _system(rng, kind, 3)), {}),
]
CASES = DESCRIPTORS + EQUATIONS + REGULATORS + ESTIMATORS + GRAMIANS + NORMS + PEAKS + REDUCTIONS

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_kind = pytest.mark.parametrize("kind", KINDS)


def difference(f, arguments, tangents, h=2e-4):
    """The derivative of f at 0 along the moves, by central differences of sixth order."""

    def at(t):
        return f(*(None if x is None else x + t * h * d for x, d in zip(arguments, tangents, strict=True)))

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
    value = step(backend, *given)[: len(step.operation.results)]
    return step, tuple(np.where(np.isinf(x), 0, x) for x in value), given  # Hankel singular values of kept poles


def size(*xs):
    return sum(np.linalg.norm(x) for x in xs)


@every_case
@every_kind
def test_tangent_is_the_limit_of_differences(case, kind, rng):
    arguments, tangents = case.stacked(rng, kind)
    step, value, given = valued(case, arguments)
    found = step.tangent(backend, value, given, [x for x in tangents if x is not None])
    expected = difference(lambda *xs: valued(case, xs)[1], arguments, tangents)
    for x, y in zip(found, expected, strict=True):
        assert size(x - y) <= 1e-8 * size(y)


@pytest.mark.parametrize("case", FACTORS[:3], ids=str)
@pytest.mark.parametrize("reached", [4, 3])
@every_kind
def test_gramian_of_a_moved_factor(case, reached, kind, rng):
    (a, *others), (da, *changes) = case.stacked(rng, kind)
    for x in (a, da, *others[:1], *changes[:1]):
        x[:, reached:] *= 0  # these states are driven by nothing
    a = a / 2 if "discrete" in case.name else a - 4 * np.eye(4)
    step, (z,), given = valued(case, (a, *others))
    (dz,) = step.tangent(backend, (z,), given, (da, *changes))

    def gramian(*arguments):
        (z,) = valued(case, arguments)[1]
        return (z @ adjoint(z),)

    (expected,) = difference(gramian, (a, *others), (da, *changes))
    assert size(dz @ adjoint(z) + z @ adjoint(dz) - expected) < 1e-8 * size(expected)


@pytest.mark.parametrize("lacks", ["input", "output", "both"])
@every_kind
def test_reduction_of_a_system_that_is_not_minimal(lacks, kind, rng):
    case = Case("balanced_truncation", _system, {"order": 2})
    (a, b, c), tangents = case.stacked(rng, kind)
    if lacks != "output":
        a[:, 3, :3], b[:, 3] = 0, 0
    if lacks != "input":
        a[:, :3, 3], c[:, :, 3] = 0, 0
    step, value, given = valued(case, (a, b, c))
    expected = difference(lambda *xs: valued(case, xs)[1], (a, b, c), tangents)
    found = step.tangent(backend, value, given, tangents)
    for x, y in zip((*found[:4], found[4][:, :3]), (*expected[:4], expected[4][:, :3]), strict=True):
        assert size(x - y) <= 1e-7 * size(y)
    cotangents = [gaussian(rng, *x.shape, dtype=x.dtype) for x in value]
    pulled = step.cotangent(backend, value, given, cotangents)
    one, other = (
        sum(np.vdot(x, y).real for x, y in zip(*p, strict=True)) for p in ((cotangents, found), (pulled, tangents))
    )
    assert abs(one - other) < 1e-11 * size(*pulled)


@pytest.mark.parametrize("case", CASES + FACTORS, ids=str)
@every_kind
def test_cotangent_is_the_adjoint(case, kind, rng):
    arguments, _ = case.stacked(rng, kind)
    step, value, given = valued(case, arguments)
    tangents = [gaussian(rng, *x.shape, dtype=kind) for x in given]
    cotangents = [gaussian(rng, *x.shape, dtype=x.dtype) for x in value]
    moved, pulled = step.tangent(backend, value, given, tangents), step.cotangent(backend, value, given, cotangents)
    one, other = (
        [np.vdot(x, y).real for x, y in zip(xs, ys, strict=True)]
        for xs, ys in ((cotangents, moved), (pulled, tangents))
    )
    assert abs(sum(one) - sum(other)) < 1e-12 * sum(map(abs, one + other))


@pytest.mark.parametrize("case", CASES + FACTORS, ids=str)
@pytest.mark.parametrize("kind", ["float32", "complex64"])
def test_derivatives_keep_single_precision(case, kind, rng):
    arguments, tangents = case.stacked(rng, kind)
    arguments = tuple(None if x is None else x.astype(kind) for x in arguments)
    tangents = [x.astype(kind) for x in tangents if x is not None]
    step, value, given = valued(case, arguments)
    wide = valued(case, tuple(None if x is None else x.astype(np.result_type(x, "float64")) for x in arguments))
    found, expected = step.tangent(backend, value, given, tangents), step.tangent(backend, wide[1], wide[2], tangents)
    assert [x.dtype for x in found] == [x.dtype for x in value]
    if case not in FACTORS:
        assert all(size(x - y) <= 2e-3 * size(y) for x, y in zip(found, expected, strict=True))
    assert {x.dtype for x in step.cotangent(backend, value, given, value)} == {np.dtype(kind)}


def functional(case, library):
    """The function of a case, in a form that gradient checks take: all arrays may move, results are arrays alone."""
    f = by_position(getattr(matsign, case.name))

    names = f.spec.parameters.arrays

    def call(*xs):
        if library == "jax":  # finite differences hand over NumPy arrays, which must be Hermitian where the equation is
            xs = [jax.numpy.asarray(x) for x in xs]
        found = f(**dict(zip(names, xs, strict=False)), **case.options)
        if case in FACTORS:
            return found @ found.mT.conj()
        return tuple(found) if isinstance(found, tuple) else found

    return call


@pytest.mark.slow
@pytest.mark.skipif(not HAVE["torch"], reason="torch is not installed")
@pytest.mark.parametrize("case", [c for c in CASES + FACTORS if c.complete], ids=str)
@every_kind
def test_torch_differentiates_twice(case, kind, rng):
    import torch

    arrays = [torch.tensor(x, requires_grad=True) for x in case.make(rng, kind)]
    assert_differentiates_twice(functional(case, "torch"), arrays)


@pytest.mark.skipif(not HAVE["torch"], reason="torch is not installed")
def test_torch_maps_over_gradients(rng):
    import torch

    a, b, q, r = (torch.tensor(x) for x in _plant(False, False, "abqr")(rng, "float64"))

    def cost(a):
        return matsign.dlqr(a, b, q, r).gain.square().sum()

    stack = torch.stack([a, a / 2, a / 3])
    found = torch.func.vmap(torch.func.grad(cost))(stack)
    assert torch.allclose(found, torch.stack([torch.func.grad(cost)(x) for x in stack]), rtol=1e-12)


@pytest.mark.skipif(not HAVE["torch"], reason="torch is not installed")
def test_multiple_poles_spoil_only_their_own_derivatives():
    import torch

    one = torch.eye(2, dtype=torch.float64)
    a = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    gain, _, poles = matsign.lqr(a, one, one, one)
    assert torch.allclose(torch.autograd.grad(gain.sum(), a, retain_graph=True)[0], torch.ones_like(a))
    assert torch.autograd.grad(poles.real.sum(), a)[0].isnan().all()


@pytest.mark.compiles
@pytest.mark.skipif(not HAVE["jax"], reason="jax is not installed")
@pytest.mark.parametrize("name", ["solve_continuous_lyapunov", "solve_discrete_are", "lyapunov_factor"])
def test_jax_differentiates_twice_in_both_modes(name, rng):
    from jax.test_util import check_grads

    case = next(c for c in CASES + FACTORS if c.name == name)
    arrays = [jax.numpy.asarray(x) for x in case.make(rng, "float64") if x is not None]
    check_grads(jax.jit(functional(case, "jax")), arrays, order=2, modes=["fwd", "rev"])


def test_derivative_beside_a_weight_that_loses_r(eager, rng):
    """Where r is small beside bᴴ x b, the closed loop comes from r + bᴴ x b with few digits of r left (1e-5 of the value)."""
    for _ in range(5):
        a, b, q, r = gaussian(rng, 2, 2), gaussian(rng, 2, 5), np.diag([4e3, 4e9]), definite(rng, 5) / 10
        tangents = [gaussian(rng, *x.shape) * np.linalg.norm(x) / 2**30 for x in (a, b, q, r)]
        tangents[2:] = [x + x.T for x in tangents[2:]]
        ahead, back = ([x + s * y for x, y in zip((a, b, q, r), tangents, strict=True)] for s in (1, -1))
        found = eager(matsign.frechet(matsign.solve_discrete_are), a, b, q, r, *map(np.subtract, ahead, back))
        one, other = (truth.discrete_are(*x, np.eye(2), 0 * b) for x in (ahead, back))
        assert truth.error(found, one - other) < 1e-8


@pytest.mark.slow
def test_derivative_of_strongly_unstable_plants(eager, rng):
    """Their closed loops are far from normal: sums of powers alone lose a digit or two more (8e-5 of the value, and 6e-2)."""
    wrong = []
    for _ in range(5):
        a, b, q, r = gaussian(rng, 5, 5) + 4 * np.eye(5), np.ones((5, 1)), np.eye(5), np.array([[2e-3]])
        tangents = [gaussian(rng, *x.shape) * np.linalg.norm(x) / 2**30 for x in (a, b)]
        ahead, back = ([x + s * y for x, y in zip((a, b), tangents, strict=True)] for s in (1, -1))
        steps = [*map(np.subtract, ahead, back), 0 * q, 0 * r]
        found = eager(matsign.frechet(matsign.solve_continuous_are), a, b, q, r, *steps)
        one, other = (truth.continuous_are(*x, q, r, np.eye(5), 0 * b) for x in (ahead, back))
        wrong.append(float(truth.size(truth.exact(found) - (one - other)) / truth.size(one)) * 2**30)
    assert np.median(wrong) < 3e-5
    assert max(wrong) < 1e-2
