"""Programs compiled by `jax.jit`, beside JAX's own functions, in float64."""

from __future__ import annotations

import matsign
from bench.case import Case, agree
from bench.cases import sizes
from bench.cases.matrices import definite, gaussian, right
from bench.peers import JAX, module

jax = module("jax")
if jax:
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import jax.scipy.linalg as jl

SIZES = sizes(quick=(64,), usual=(256,), long=(512,))


def finished(f):
    """A compiled function that waits for its result."""
    compiled = jax.jit(f) if jax else None
    return lambda *arrays: jax.block_until_ready(compiled(*arrays))


def anew(f):
    """Tracing, compiling and the first call."""
    return lambda *arrays: jax.block_until_ready(jax.jit(lambda *x: f(*x))(*arrays))


def gradient(f):
    """The gradient of <w, f(a)> in a."""
    return lambda a, w: jax.grad(lambda x: (f(x) * w).sum())(a)


def arrays(*given):
    return tuple(jnp.asarray(x) for x in given)


def root_by_eigh(a):
    values, v = jnp.linalg.eigh(a)
    return (v * jnp.sqrt(values)[..., None, :]) @ v.mT


def fourth_root_by_eigh(a):
    """a^(-1/4)."""
    values, v = jnp.linalg.eigh(a)
    return (v * values[..., None, :] ** -0.25) @ v.mT


def msign_by_svd(m):
    u, _, vh = jnp.linalg.svd(m, full_matrices=False)
    return u @ vh


def one_definite(rng, *shape):
    return arrays(definite(rng, *shape, shape[-1]))


def symmetric_gradients(rng, n):
    return arrays(definite(rng, n, n), definite(rng, n, n))


CASES = [
    Case(
        "invrootm, 4, definite", JAX, "numpy.linalg.eigh", one_definite,
        finished(lambda a: matsign.invrootm(a, 4)), finished(fourth_root_by_eigh),
        sizes(quick=((5000, 3),), usual=((50_000, 3),), long=((1_000_000, 3),)), agree(1e-8),
    ),
    Case(
        "sqrtm, definite", JAX, "numpy.linalg.eigh", one_definite,
        finished(matsign.sqrtm), finished(root_by_eigh), sizes(quick=(64,), usual=(256, (2000, 8)), long=(512,)), agree(1e-8),
    ),
    Case(
        "msign, n × n/2", JAX, "numpy.linalg.svd", lambda rng, n: arrays(gaussian(rng, n, n // 2)),
        finished(matsign.msign), finished(msign_by_svd), SIZES, agree(1e-8),
    ),
    Case(
        "polar, Gaussian, 2n × n", JAX, "scipy.linalg.polar", lambda rng, n: arrays(gaussian(rng, 2 * n, n)),
        finished(lambda m: tuple(matsign.polar(m))), finished(lambda m: jl.polar(m)), SIZES, agree(1e-8),
    ),
    Case(
        "solve_sylvester, separable spectra", JAX, "scipy.linalg.solve_sylvester",
        lambda rng, n: arrays(right(rng, n, n), right(rng, n, n), gaussian(rng, n, n)),
        finished(matsign.solve_sylvester), finished(lambda *x: jl.solve_sylvester(*x)),
        sizes(quick=(64,), usual=(128,), long=(256,)), agree(1e-8),
    ),
    Case(
        "sqrtm, definite, gradient", JAX, "grad of eigh", symmetric_gradients,
        finished(gradient(matsign.sqrtm)), finished(gradient(root_by_eigh)), SIZES, agree(1e-8),
    ),
    Case(
        "sqrtm, compilation and first call", JAX, "numpy.linalg.eigh", one_definite,
        anew(matsign.sqrtm), anew(root_by_eigh), sizes(quick=(6,)), agree(1e-8),
    ),
    Case(
        "sqrtm, gradient, compilation and first call", JAX, "grad of eigh", symmetric_gradients,
        anew(gradient(matsign.sqrtm)), anew(gradient(root_by_eigh)), sizes(usual=(6,)), agree(1e-8),
    ),
]  # fmt: skip
