"""What the tour runs on: the models and data that are shipped, or the matrices A, B, C of a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg

from matsign._typing import NDArray as Array
from matsign.cli import models
from matsign.cli.references import block


class Input(NamedTuple):
    """Matrices with a description."""

    text: str
    arrays: tuple[Array, ...]


@dataclass(frozen=True)
class Inputs:
    """One input for every kind of identity."""

    gradient: Input  # M, rank-deficient
    general: Input  # M with eigenvalues in both half planes
    flow: Array  # a smaller matrix of that kind, for the picture
    symmetric: Input  # S, indefinite
    real: Input  # M with real eigenvalues of both signs
    singular: Input  # M with eigenvalue zero
    core: tuple[Array, Array]  # R, Lᴴ with M R = R (Lᴴ M R), Lᴴ R = I: the part of the singular M that is not zero
    triangular: Input  # a, b, q of a Sylvester equation, small enough to assemble
    sylvester: Input  # a, b, q
    plants: tuple[tuple[Input, Array], ...]  # a, b, c, d of a Riccati equation, and a factor of d
    covariance: Input  # C, symmetric positive definite
    root: Input  # A, no eigenvalue on the negative axis
    coupled: Input  # A, B, the same for BA
    pair: Input  # two covariances
    corners: tuple[Input, ...]  # C, of every shape
    unstable: Input  # M, of which the projector on the unstable modes is computed


def shipped_inputs(quick: bool = False) -> Inputs:
    """Physical models and measured data; small ones if `quick`."""
    n = 24 if quick else 128
    gradient = Input("gradient of a digit classifier", (models.gradient(max(n, 80)),))
    chain, drift = models.free_chain(n // 3 * 2)
    pixels, _ = models.digits()
    covariance = np.cov(pixels.T)
    mean = np.eye(64) * np.trace(covariance) / 64
    flow, across = models.convection_diffusion(4 * n, 8.0), models.convection_diffusion(3 * n, 2.0)
    small = models.convection_diffusion(n, 8.0), models.convection_diffusion(n // 2, 2.0)
    wines, cultivar = models.wines()
    return Inputs(
        gradient=gradient,
        general=Input("spring chain in a wind", (models.spring_chain(n),)),
        flow=models.spring_chain(20),
        symmetric=Input("covariance of pixels - mean eigenvalue", (covariance - mean,)),
        real=Input("convection-diffusion, shifted", (between_eigenvalues(models.convection_diffusion(2 * n, 4.0)),)),
        singular=Input("spring chain, free to drift", (chain,)),
        core=(drift, drift.T),
        triangular=Input("convection-diffusion", (*small, _source(*small))),
        sylvester=Input("convection-diffusion in a square", (flow, across, _source(flow, across))),
        plants=(
            regulator("heat rod, regulated", *models.heat_rod(n)),
            regulator("AFTI/F-16, regulated", *models.aircraft()),
        ),
        covariance=Input("covariance of pixels, a tenth shrunk", (0.9 * covariance + 0.1 * mean,)),
        root=Input("convection-diffusion", (models.convection_diffusion(2 * n, 8.0),)),
        coupled=Input("impedance and admittance of a bus", models.interconnect(n)),
        pair=Input("covariances of two cultivars", tuple(np.cov(wines[cultivar == k].T) for k in (0, 1))),
        corners=(
            Input("convection-diffusion, square", (models.convection_diffusion(n, 8.0),)),
            Input("wine measurements, tall", (wines[: 4 * n],)),
            Input("24 images, wide", (pixels[:24],)),
            gradient._replace(text="gradient, rank-deficient"),
        ),
        unstable=Input("AFTI/F-16", models.aircraft()[:1]),
    )


def from_model(a: Array, b: Array, c: Array) -> Inputs:
    """The same kinds of matrices from a linear system x' = A x + B u, y = C x.

    In place of the covariances these are the stationary covariance under unit noise in every state, and its dual; in place of
    matrices with eigenvalues in both half planes, the Hamiltonian matrix of the regulator.
    """
    _check(a, b, c)
    n, eye = len(a), np.eye(len(a))
    growth = float(np.linalg.eigvals(a).real.max())
    decay, name = (a, "A") if growth < 0 else (a - 1.1 * (growth + np.linalg.norm(a) / n) * eye, "A shifted to decay")
    state, dual = (_stationary(x) for x in (decay, decay.T))
    symmetric = (a + a.T) / 2 - np.trace(a) / n * eye
    weighted, (steering, weight) = b @ c if b.shape[1] == len(c) else b @ b.T, (b @ b.T, c.T @ c)
    hamiltonian = block(a, -steering, -weight, -a.T)
    held = block(decay, b, np.zeros((b.shape[1], n)), np.zeros((b.shape[1], b.shape[1])))
    core = np.eye(len(held), n), np.hstack([eye, np.linalg.solve(decay, b)])
    lyapunov = Input(f"{name}: reachability", (-decay, -decay.T, steering))
    both = Input("stationary covariance and its dual", (state, dual))
    return Inputs(
        gradient=Input("B C" if b.shape[1] == len(c) else "B Bᵀ", (weighted,)),
        general=Input("Hamiltonian matrix of A, B, C", (hamiltonian,)),
        flow=hamiltonian,
        symmetric=Input("symmetric part of A - mean eigenvalue", (symmetric,)),
        real=Input("symmetric part of A, shifted", (between_eigenvalues((a + a.T) / 2),)),
        singular=Input(f"{name} with its inputs held constant", (held,)),
        core=core,
        triangular=lyapunov,
        sylvester=lyapunov,
        plants=(regulator("A, B, C regulated", a, b, c),),
        covariance=Input("stationary covariance", (state,)),
        root=Input(f"-{name}", (-decay,)),
        coupled=both,
        pair=both,
        corners=(Input("A", (a,)), Input("B", (b,)), Input("C", (c,)), Input("B Bᵀ", (steering,))),
        unstable=Input("Hamiltonian matrix of A, B, C", (hamiltonian,)),
    )


def regulator(text: str, a: Array, b: Array, c: Array) -> tuple[Input, Array]:
    """The Riccati equation of the optimal stabilising u = -BᵀX x, cost |Cx|² + |u|², in the article's letters, and B.

    AᵀX + XA - XBBᵀX + CᵀC = 0 is x d x + x b - a x - c = 0, and b + d x = -(A - BBᵀX) has its spectrum in the right half plane.
    """
    return Input(text, (a.T.copy(), -a, c.T @ c, b @ b.T)), b


def between_eigenvalues(m: Array) -> Array:
    """M with real eigenvalues, shifted so that zero lies in the widest gap in the middle half of them."""
    values = np.sort(np.linalg.eigvals(m).real)
    low, high = len(values) // 4, max(3 * len(values) // 4, len(values) // 4 + 2)
    middle = values[low:high]
    k = int(np.argmax(np.diff(middle)))
    return m - (middle[k] + middle[k + 1]) / 2 * np.eye(len(m))


def _source(a: Array, b: Array) -> Array:
    """A local heat source, not in the middle."""
    x, y = (np.arange(1, len(m) + 1) / (len(m) + 1) for m in (a, b))
    return np.exp(-30 * ((x[:, None] - 0.3) ** 2 + (y - 0.6) ** 2))


def _stationary(a: Array) -> Array:
    p = scipy.linalg.solve_continuous_lyapunov(a, -np.eye(len(a)))
    return np.asarray((p + p.T) / 2)


def _check(a: Array, b: Array, c: Array) -> None:
    fits = a.ndim == b.ndim == c.ndim == 2 and a.shape[0] == a.shape[1] == b.shape[0] == c.shape[1] and len(a) > 1
    if not fits:
        raise ValueError(
            f"a model is A (n, n), B (n, m), C (p, n) with n > 1; these are {a.shape}, {b.shape} and {c.shape}"
        )
    if any(np.iscomplexobj(x) or not np.isfinite(x).all() for x in (a, b, c)):
        raise ValueError("a model is real and finite; this one is not")
