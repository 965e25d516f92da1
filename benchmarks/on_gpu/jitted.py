"""The cases of gpu_functions.py with JAX, under jit."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import matsign
from on_gpu.cases import Case, Run, distance

rng = np.random.default_rng(2)


def definite(n: int, *batch: int) -> np.ndarray:
    g = rng.standard_normal((*batch, n, n))
    return g @ g.mT / n + 0.1 * np.eye(n)


def jitted_function(run: Run, f: Any, args: list[np.ndarray], dtype: str, peer: Any) -> Case:
    """Beside another function under jit, of the last argument; members of a batch share a time."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    there = [jnp.asarray(x, dtype) for x in args]
    expected = np.asarray(f(*[np.asarray(x, np.float64) for x in there]))
    call = jax.jit(f)
    peers = {}
    if peer is not None:
        name, function = peer
        compiled = jax.jit(function)
        peers[name] = lambda: compiled(there[-1])
    allowed = 1e-8 if dtype == "float64" else 1e-3
    count = len(args[-1]) if args[-1].ndim > 2 else 1
    return Case(lambda: call(*there), lambda x: distance(x, expected), allowed, peers, count)


def jitted(run: Run) -> None:
    import jax.numpy as jnp

    def root_by_eigh(a: Any) -> Any:
        values, vectors = jnp.linalg.eigh(a)
        return (vectors / jnp.sqrt(values)[..., None, :]) @ vectors.mT

    eigh, svd = ("jnp.linalg.eigh", root_by_eigh), ("jnp.linalg.svd", jnp.linalg.svd)
    small, n, many, million = (8, 6, 5, 100) if run.cpu else (32, 256, 64, 1_000_000)
    stack, single = definite(n, many), definite(n)
    general = rng.standard_normal((n, n)) / np.sqrt(n) + 2 * np.eye(n)
    clouds = [rng.standard_normal((million, 8, 3)) for _ in range(2)]
    tiny = definite(3, million)
    covariance = rng.standard_normal((million, 3, 3))
    cases: dict[str, tuple[Any, list[np.ndarray], str, Any]] = {
        f"invrootm 4 {many} x {n}": (partial(matsign.invrootm, p=4, tol=1e-4), [stack], "float32", eigh),
        "invsqrtm million x 3": (matsign.invsqrtm, [tiny], "float32", eigh),
        "kabsch million": (lambda p, q: matsign.kabsch(p, q).rotation, clouds, "float32", None),
        "nearest_rotation million": (matsign.nearest_rotation, [covariance], "float32", svd),
        f"fractional_matrix_power general {n}": (
            partial(matsign.fractional_matrix_power, t=0.3), [general], "float64", None,
        ),
        f"logm general {n}": (matsign.logm, [general], "float64", None),
        f"invroot_product 4 {n}": (
            partial(matsign.invroot_product, p=4, tol=1e-4), [rng.standard_normal((n, n)), single], "float32", eigh,
        ),
        f"bures_distance {n}": (matsign.bures_distance, [single, definite(n)], "float64", eigh),
        f"riemannian_distance {n}": (matsign.riemannian_distance, [single, definite(n)], "float64", eigh),
        f"geometric_mean 64 x {small}": (
            matsign.geometric_mean, [definite(small, 64), definite(small, 64)], "float64", eigh,
        ),
        f"karcher_mean 20 x {small}": (matsign.karcher_mean, [definite(small, 20)], "float64", None),
        f"fermi_occupation {n}": (lambda h: matsign.fermi_occupation(h, 0.1, 0.5).density, [single], "float64", eigh),
        f"spectral_projector {n}": (
            partial(matsign.spectral_projector, at=0.5, half_plane="left"), [single], "float64", eigh,
        ),
    }  # fmt: skip
    for name, (f, args, dtype, peer) in cases.items():
        run.case(f"{name} {dtype}", jitted_function, run, f, args, dtype, peer)
