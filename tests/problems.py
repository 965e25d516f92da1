"""One well-posed problem for every public function, with an independent reference, for the tests of all functions."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.linalg as sl

import direct
import matrices
import matsign
import truth


class Problem(NamedTuple):
    """A function, its arguments, an independent answer, and the scaling of the answer.

    `scales(s)` gives factors for the arguments and for the results; None if a threshold fixes the scale.
    """

    name: str
    f: Callable
    make: Callable
    reference: Callable
    truth: Callable
    scales: Callable | None
    methods: tuple = ()

    def takes(self, dtype):
        return not (self.f.spec.parameters.real_only and matrices.is_complex(dtype))

    def stacked(self, rng, count, dtype="float64"):
        """Arguments with a leading axis."""
        members = [self.make(rng, dtype) for _ in range(count)]
        return tuple(np.stack(x) for x in zip(*members, strict=True))

    def several(self, *arguments):
        """The reference for stacked arguments, always as a tuple of results."""
        batch = np.broadcast_shapes(*(x.shape[:-2] for x in arguments))
        arguments = [np.broadcast_to(x, batch + x.shape[-2:]) for x in arguments]
        parts = [as_tuple(self.reference(*(x[k] for x in arguments))) for k in np.ndindex(batch)]
        return tuple(np.stack(x).reshape(batch + x[0].shape) for x in zip(*parts, strict=True))


def arrays_by_position(f):
    """The names of the arrays that a function takes by position: `Problem.make` has those."""
    parameters = f.spec.parameters
    return [name for name in parameters.arrays if name not in parameters.keyword_arrays]


def as_tuple(x):
    return tuple(x) if isinstance(x, tuple) else (x,)


def bound(f, **options):
    """A function with other defaults, because the tests of all functions pass no options."""
    parameters = f.spec.parameters
    places = [p.replace(default=options.get(p.name, p.default)) for p in parameters.signature.parameters.values()]
    signature = parameters.signature.replace(parameters=places)

    @functools.wraps(f)
    def call(*args, **kwargs):
        return f(*args, **{**options, **kwargs})

    call.spec = replace(
        f.spec, parameters=replace(parameters, signature=signature, options=parameters.options | options)
    )
    return call


def _polar_by_svd(m):
    u = direct.msign_by_svd(m)
    h = matrices.adjoint(u) @ m
    return u, (h + matrices.adjoint(h)) / 2


def _polar_truth(m):
    u = truth.msign(m)
    return u, truth.adjoint(u) @ truth.exact(m)


def _coupled_by_eigenvectors(a, b):
    values, v = np.linalg.eig(b @ a)
    z = (v / np.sqrt(values.astype(complex))) @ np.linalg.inv(v)
    c, d = a @ z, z @ b
    return (c, d) if np.iscomplexobj(a) else (c.real, d.real)


def _mean_by_roots(a, b):
    r, z = direct.root_by_eigh(a), direct.inverse_root_by_eigh(a)
    inner = z @ b @ z
    return r @ direct.root_by_eigh((inner + matrices.adjoint(inner)) / 2) @ r


def _density_by_eigenvectors(m, overlap):
    """The projector on the eigenvalues of overlap⁻¹ m in the right half plane, times overlap⁻¹."""
    s = direct.sign_by_eigenvectors(np.linalg.solve(overlap, m))
    return (np.eye(len(m)) + s) / 2 @ np.linalg.inv(overlap)


def _density_truth(m, overlap):
    inverse = truth.inverse(truth.exact(overlap))
    return (truth.sign(inverse @ truth.exact(m)) + truth.eye(len(m))) / 2 @ inverse


def _root_pair_truth(a):
    return truth.root_pair(a)


def _riccati(rng, dtype, n=3, m=2):
    a, b = -matrices.stable(rng, n, dtype), matrices.stable(rng, m, dtype)
    return a, b, *(0.1 * matrices.gaussian(rng, *s, dtype=dtype) for s in ((n, m), (m, n)))


def _regulator(rng, dtype, n=4, m=2):
    """a, b, q, r, e, s with a positive definite cost."""
    a, b = (matrices.gaussian(rng, *s, dtype=dtype) for s in ((n, n), (n, m)))
    cost = matrices.definite(rng, n + m, dtype=dtype)
    e = (np.eye(n) + 0.1 * matrices.gaussian(rng, n, n, dtype=dtype)).astype(dtype)
    return a / 2, b, cost[:n, :n], cost[n:, n:], e, cost[:n, n:]


def _finite_horizon(rng, dtype):
    """a, b, q, r and the weight at the end."""
    return (*_regulator(rng, dtype, n=3)[:4], matrices.definite(rng, 3, dtype=dtype))


def _unstable_regulator(rng, dtype):
    """The same with poles outside the unit circle, an input for each, and less cost of the states: r + bᴴ x₋ b is regular."""
    a, b, q, r, e, s = _regulator(rng, dtype, 3, 3)
    two = 2 * np.eye(3, dtype=a.dtype)
    return a / 2 + two, b + two, q / 16, r, e, s / 4


def _continuous_are_by_qz(*arguments):
    return sl.solve_continuous_are(*arguments, balanced=False)


def _both_by_qz(a, b, *others):
    return _continuous_are_by_qz(a, b, *others), -_continuous_are_by_qz(-a, -b, *others)


def _discrete_are_by_qz(*arguments):
    return sl.solve_discrete_are(*arguments, balanced=False)


def _both_discrete_by_qz(a, b, q, r, e, s):
    """The graphs of the two deflating subspaces of the symplectic pencil, inside and outside the unit circle."""
    n, cross = len(a), np.linalg.solve(r, s.conj().T)
    inverse = np.linalg.inv(e)
    a, q, zero = (a - b @ cross) @ inverse, inverse.conj().T @ (q - s @ cross) @ inverse, 0 * a
    left = np.block([[a, zero], [-q, np.eye(n)]])
    right = np.block([[np.eye(n), b @ np.linalg.solve(r, b.conj().T)], [zero, a.conj().T]])
    output = "complex" if np.iscomplexobj(a) else "real"
    graphs = (sl.ordqz(left, right, sort=sort, output=output)[-1][:, :n] for sort in ("iuc", "ouc"))
    return tuple(np.linalg.solve(z[:n].T, z[n:].T).T for z in graphs)


def _near_definite(rng, dtype):
    """Not Hermitian, spectrum in the right half plane."""
    return matrices.stable(rng, 4, dtype)


ITERATIVE = ("newton", "polynomial", "schur", "auto")

PROBLEMS = [
    Problem(
        "msign",
        matsign.msign,
        lambda rng, dtype: (matrices.with_singular_values(rng, 4, 3, [3, 2, 1], dtype).astype(dtype),),
        direct.msign_by_svd,
        truth.msign,
        lambda s: ((s,), (1,)),
        ("polynomial", "newton", "svd", "gram", "auto"),
    ),
    Problem(
        "polar",
        matsign.polar,
        lambda rng, dtype: (matrices.with_singular_values(rng, 4, 3, [3, 2, 1], dtype).astype(dtype),),
        _polar_by_svd,
        _polar_truth,
        lambda s: ((s,), (1, s)),
        ("polynomial", "newton", "svd", "gram", "auto"),
    ),
    Problem(
        "nearest_rotation",
        matsign.nearest_rotation,
        lambda rng, dtype: (matrices.mirrored(rng, 3, [3, 2, 1], dtype),),
        direct.nearest_rotation_by_svd,
        truth.nearest_rotation,
        lambda s: ((s,), (1,)),
    ),
    Problem(
        "procrustes",
        matsign.procrustes,
        lambda rng, dtype: (
            matrices.with_singular_values(rng, 4, 3, [3, 2, 1], dtype).astype(dtype),
            matrices.with_singular_values(rng, 4, 3, [2, 1.5, 1], dtype).astype(dtype),
        ),
        sl.orthogonal_procrustes,
        truth.procrustes,
        lambda s: ((s, 1), (1, s)),
    ),
    Problem(
        "mcsgn",
        matsign.mcsgn,
        lambda rng, dtype: (matrices.splitting(rng, 4, dtype),),
        direct.sign_by_eigenvectors,
        truth.sign,
        lambda s: ((s,), (1,)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "spectral_projector",
        matsign.spectral_projector,
        lambda rng, dtype: (matrices.splitting(rng, 4, dtype), matrices.definite(rng, 4, dtype=dtype)),
        _density_by_eigenvectors,
        _density_truth,
        lambda s: ((s, 1), (1,)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "matrix_abs",
        matsign.matrix_abs,
        lambda rng, dtype: (matrices.splitting(rng, 4, dtype),),
        lambda m: m @ direct.sign_by_eigenvectors(m),
        lambda m: truth.exact(m) @ truth.sign(m),
        lambda s: ((s,), (s,)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "mclip",
        bound(matsign.mclip, lower=0.5, upper=2.0),
        lambda rng, dtype: (matrices.with_singular_values(rng, 4, 3, [3, 1, 0.2], dtype).astype(dtype),),
        lambda m: direct.mclip_by_svd(m, 0.5, 2.0),
        lambda m: truth.mclip(m, 0.5, 2.0),
        None,
        ("svd", "sign", "auto"),
    ),
    Problem(
        "soft_threshold",
        bound(matsign.soft_threshold, t=0.5),
        lambda rng, dtype: (matrices.with_singular_values(rng, 3, 4, [3, 1, 0.2], dtype).astype(dtype),),
        lambda m: direct.soft_threshold_by_svd(m, 0.5),
        lambda m: truth.soft_threshold(m, 0.5),
        None,
        ("svd", "sign", "auto"),
    ),
    Problem(
        "psd_project",
        matsign.psd_project,
        lambda rng, dtype: (matrices.splitting(rng, 4, dtype),),
        direct.psd_by_eigh,
        truth.psd_project,
        lambda s: ((s,), (s,)),
        ("eigh", "sign", "auto"),
    ),
    Problem(
        "sqrtm",
        matsign.sqrtm,
        lambda rng, dtype: (_near_definite(rng, dtype),),
        direct.root_by_schur,
        lambda a: truth.root_pair(a)[0],
        lambda s: ((s,), (s**0.5,)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "invsqrtm",
        matsign.invsqrtm,
        lambda rng, dtype: (_near_definite(rng, dtype),),
        lambda a: np.linalg.inv(direct.root_by_schur(a)),
        lambda a: truth.root_pair(a)[1],
        lambda s: ((s,), (s**-0.5,)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "sqrtm_pair",
        matsign.sqrtm_pair,
        lambda rng, dtype: (matrices.definite(rng, 4, dtype=dtype),),
        lambda a: (direct.root_by_eigh(a), direct.inverse_root_by_eigh(a)),
        truth.root_pair,
        lambda s: ((s,), (s**0.5, s**-0.5)),
        ("newton", "polynomial", "schur", "eigh", "auto"),
    ),
    Problem(
        "rootm",
        bound(matsign.rootm, p=3),
        lambda rng, dtype: (_near_definite(rng, dtype),),
        lambda a: direct.power_by_scipy(a, 1 / 3),
        lambda a: truth.power(a, 1, 3),
        lambda s: ((s,), (np.cbrt(s),)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "invrootm",
        bound(matsign.invrootm, p=4),
        lambda rng, dtype: (matrices.definite(rng, 4, dtype=dtype),),
        lambda a: direct.power_by_scipy(a, -0.25),
        lambda a: truth.power(a, -1, 4),
        lambda s: ((s,), (s**-0.25,)),
        ("polynomial", "newton", "eigh", "schur", "auto"),
    ),
    Problem(
        "invroot_product",
        bound(matsign.invroot_product, p=4),
        lambda rng, dtype: (matrices.gaussian(rng, 2, 3, dtype=dtype), matrices.definite(rng, 3, dtype=dtype)),
        lambda g, a: g @ direct.power_by_scipy(a, -0.25),
        lambda g, a: truth.exact(g) @ truth.power(a, -1, 4),
        lambda s: ((1, s), (s**-0.25,)),
        ("polynomial", "newton", "eigh", "schur", "auto"),
    ),
    Problem(
        "fractional_matrix_power",
        bound(matsign.fractional_matrix_power, t=-0.75),
        lambda rng, dtype: (_near_definite(rng, dtype),),
        lambda a: direct.power_by_scipy(a, -0.75),
        lambda a: truth.power(a, -0.75),
        lambda s: ((s,), (s**-0.75,)),
        ("newton", "schur", "auto"),
    ),
    Problem(
        "logm",
        matsign.logm,
        lambda rng, dtype: (_near_definite(rng, dtype),),
        direct.logarithm_by_scipy,
        truth.logarithm,
        None,
        ("newton", "schur", "auto"),
    ),
    Problem(
        "coupled_root",
        matsign.coupled_root,
        lambda rng, dtype: (matrices.definite(rng, 4, dtype=dtype), matrices.stable(rng, 4, dtype)),
        _coupled_by_eigenvectors,
        truth.coupled_root,
        lambda s: ((s, 1 / s), (s, 1 / s)),
    ),
    Problem(
        "geometric_mean",
        matsign.geometric_mean,
        lambda rng, dtype: (matrices.definite(rng, 4, dtype=dtype), matrices.definite(rng, 4, dtype=dtype)),
        _mean_by_roots,
        truth.geometric_mean,
        lambda s: ((s, s), (s,)),
    ),
    Problem(
        "solve_sylvester",
        matsign.solve_sylvester,
        lambda rng, dtype: (
            matrices.stable(rng, 3, dtype),
            matrices.stable(rng, 2, dtype),
            matrices.gaussian(rng, 3, 2, dtype=dtype),
        ),
        direct.sylvester_by_kronecker,
        truth.sylvester,
        lambda s: ((s, s, 1), (1 / s,)),
        ("newton", "schur", "divide", "eigenvectors", "auto"),
    ),
    Problem(
        "solve_continuous_lyapunov",
        matsign.solve_continuous_lyapunov,
        lambda rng, dtype: (-matrices.stable(rng, 3, dtype), matrices.gaussian(rng, 3, 3, dtype=dtype)),
        direct.lyapunov_by_kronecker,
        truth.lyapunov,
        lambda s: ((s, 1), (1 / s,)),
        ("doubling", "newton", "schur", "auto"),
    ),
    Problem(
        "solve_discrete_lyapunov",
        matsign.solve_discrete_lyapunov,
        lambda rng, dtype: (matrices.contraction(rng, 3, dtype), matrices.definite(rng, 3, dtype=dtype)),
        direct.stein_by_kronecker,
        truth.stein,
        lambda s: ((1, s), (s,)),
        ("doubling", "schur", "direct", "auto"),
    ),
    Problem(
        "solve_discrete_sylvester",
        matsign.solve_discrete_sylvester,
        lambda rng, dtype: (
            matrices.contraction(rng, 3, dtype),
            matrices.contraction(rng, 2, dtype),
            matrices.gaussian(rng, 3, 2, dtype=dtype),
        ),
        direct.discrete_sylvester_by_kronecker,
        truth.discrete_sylvester,
        lambda s: ((1, 1, s), (s,)),
        ("doubling", "schur", "auto"),
    ),
    Problem(
        "solve_generalized_sylvester",
        matsign.solve_generalized_sylvester,
        lambda rng, dtype: (
            *(matrices.stable(rng, n, dtype) for n in (3, 2)),
            *((np.eye(n) + 0.1 * matrices.gaussian(rng, n, n, dtype=dtype)).astype(dtype) for n in (3, 2)),
            matrices.gaussian(rng, 3, 2, dtype=dtype),
        ),
        direct.generalized_sylvester_by_kronecker,
        truth.generalized_sylvester,
        lambda s: ((1, 1, 1, 1, s), (s,)),
        ("standard", "qz", "auto"),
    ),
    Problem(
        "solve_sylvester_pair",
        matsign.solve_sylvester_pair,
        lambda rng, dtype: (
            matrices.stable(rng, 3, dtype),
            -matrices.stable(rng, 2, dtype),
            matrices.gaussian(rng, 3, 2, dtype=dtype),
            *((np.eye(n) + 0.1 * matrices.gaussian(rng, n, n, dtype=dtype)).astype(dtype) for n in (3, 2)),
            matrices.gaussian(rng, 3, 2, dtype=dtype),
        ),
        direct.sylvester_pair_by_kronecker,
        truth.sylvester_pair,
        lambda s: ((1, 1, s, 1, 1, s), (s, s)),
        ("standard", "qz", "auto"),
    ),
    Problem(
        "lyapunov_factor",
        matsign.lyapunov_factor,
        lambda rng, dtype: (-matrices.stable(rng, 3, dtype), matrices.gaussian(rng, 3, 4, dtype=dtype)),
        direct.lyapunov_factor_by_kronecker,
        truth.lyapunov_factor,
        lambda s: ((1, s), (s,)),
    ),
    Problem(
        "discrete_lyapunov_factor",
        matsign.discrete_lyapunov_factor,
        lambda rng, dtype: (matrices.contraction(rng, 3, dtype), matrices.gaussian(rng, 3, 4, dtype=dtype)),
        direct.stein_factor_by_kronecker,
        truth.stein_factor,
        lambda s: ((1, s), (s,)),
    ),
    Problem(
        "riccati_factor",
        matsign.riccati_factor,
        lambda rng, dtype: (
            -matrices.stable(rng, 3, dtype),
            matrices.gaussian(rng, 3, 2, dtype=dtype),
            matrices.gaussian(rng, 4, 3, dtype=dtype),
        ),
        direct.riccati_factor_by_schur,
        truth.riccati_factor,
        lambda s: ((s, 1, s), (s**0.5,)),
    ),
    Problem(
        "gramian",
        matsign.gramian,
        lambda rng, dtype: (-matrices.stable(rng, 3, dtype), matrices.gaussian(rng, 3, 2, dtype=dtype)),
        direct.gramian_by_kronecker,
        truth.gramian,
        lambda s: ((1, s**0.5), (s,)),
    ),
    Problem(
        "discrete_gramian",
        matsign.discrete_gramian,
        lambda rng, dtype: (matrices.contraction(rng, 3, dtype), matrices.gaussian(rng, 3, 2, dtype=dtype)),
        direct.discrete_gramian_by_kronecker,
        truth.discrete_gramian,
        lambda s: ((1, s**0.5), (s,)),
    ),
    Problem(
        "solve_riccati",
        matsign.solve_riccati,
        _riccati,
        direct.riccati_by_eigenvectors,
        truth.riccati,
        lambda s: ((1, 1, s, 1 / s), (s,)),
        ("newton", "schur", "doubling", "auto"),
    ),
    Problem(
        "solve_continuous_are",
        matsign.solve_continuous_are,
        _regulator,
        _continuous_are_by_qz,
        truth.continuous_are,
        lambda s: ((1, 1, s, s, 1, s), (s,)),
        ("doubling", "sign", "qz", "auto"),
    ),
    Problem(
        "solve_differential_riccati",
        bound(matsign.solve_differential_riccati, t=0.75),
        _finite_horizon,
        lambda *arguments: direct.differential_riccati(*arguments, 0.75),
        lambda *arguments: truth.differential_riccati(*arguments, np.array(0.75)),
        lambda s: ((1, 1, s, s, s), (s,)),
    ),
    Problem(
        "extremal_solutions",
        matsign.extremal_solutions,
        _regulator,
        _both_by_qz,
        lambda *arguments: tuple(truth.continuous_are(*arguments, side) for side in (-1, 1)),
        lambda s: ((1, 1, s, s, 1, s), (s, s)),
    ),
    Problem(
        "discrete_extremal_solutions",
        matsign.discrete_extremal_solutions,
        _unstable_regulator,
        _both_discrete_by_qz,
        lambda *arguments: tuple(truth.discrete_are(*arguments, side) for side in (-1, 1)),
        lambda s: ((1, 1, s, s, 1, s), (s, s)),
    ),
    Problem(
        "solve_discrete_are",
        matsign.solve_discrete_are,
        _regulator,
        _discrete_are_by_qz,
        truth.discrete_are,
        lambda s: ((1, 1, s, s, 1, s), (s,)),
        ("doubling", "sign", "qz", "auto"),
    ),
]
BY_NAME = {p.name: p for p in PROBLEMS}

# The largest error of an answer to these well-conditioned problems, by dtype.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "complex64": 1e-4, "complex128": 1e-12}


def worst(value, reference):
    """The largest relative error over the results of a function and over batch members."""
    out = 0.0
    for x, y in zip(as_tuple(value), as_tuple(reference), strict=True):
        x, y = np.asarray(x, complex), np.asarray(y, complex)
        assert x.shape == y.shape
        x, y = (z.reshape((*z.shape, 1, 1)) if z.ndim < 2 else z for z in (x, y))  # numbers as matrices
        gap, scale = (np.linalg.norm(z, axis=(-1, -2)) for z in (x - y, y))
        out = max(out, float(np.max(gap / scale, initial=0.0)) if np.isfinite(gap).all() else np.inf)
    return out
