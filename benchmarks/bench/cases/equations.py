"""Sylvester and Lyapunov equations with one right-hand side."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sl

import matsign
from bench.case import Case, agree, difference
from bench.cases import sizes, slicot
from bench.cases.matrices import gaussian, right, with_radius
from bench.peers import SCIPY, SLICOT

SIZES = sizes(quick=(64,), usual=(8, 256), long=(512, 1024))
SHORTER = sizes(quick=(64,), usual=(8, 256), long=(512,))
FEW = sizes(usual=(64,), long=(256, 512))
SLICOT_SIZES = sizes(quick=(64,), usual=(256,), long=(512,))


def separable(rng, n):
    return right(rng, n, n), right(rng, n, n), gaussian(rng, n, n)


def mixed(rng, n):
    return gaussian(rng, n, n), gaussian(rng, n, n), gaussian(rng, n, n)


def covariance(rng, n):
    b = gaussian(rng, n, 2)
    return b @ b.T


def stable(rng, n):
    return -right(rng, n, n), -covariance(rng, n)


def inside(rng, n):
    return with_radius(gaussian(rng, n, n), 0.9), covariance(rng, n)


def three_inputs(rng, n):
    return -right(rng, n, n), gaussian(rng, n, 3)


def discrete(radius):
    """Coefficients of this spectral radius; above 1, products of their eigenvalues are on both sides of the unit circle."""
    return lambda rng, n: (*(with_radius(gaussian(rng, n, n), radius) for _ in range(2)), gaussian(rng, n, n))


def generalized(rng, n):
    return *(right(rng, n, n) for _ in range(4)), gaussian(rng, n, n)


def pair(rng, n):
    a, b, d, e = (right(rng, n, n) for _ in range(4))
    return a, -b, gaussian(rng, n, n), d, e, gaussian(rng, n, n)


def by_cayley(a, b, q):
    """a x b - x + q = 0: u x + x b v = -u q v with u = (a - I)⁻¹ and v = (b - I)⁻¹."""
    u, v = np.linalg.inv(a - np.eye(len(a))), np.linalg.inv(b - np.eye(len(b)))
    return sl.solve_sylvester(u, b @ v, -u @ q @ v)


def by_inverses(a, b, c, d, q):
    """a x b + c x d = q: (c⁻¹ a) x + x (d b⁻¹) = c⁻¹ q b⁻¹."""
    u, v = np.linalg.inv(c), np.linalg.inv(b)
    return sl.solve_sylvester(u @ a, d @ v, u @ q @ v)


def with_mass(rng, n):
    """A stable pencil with a mass matrix of condition 1e4."""
    u, w = np.linalg.qr(gaussian(rng, n, n))[0], gaussian(rng, n, n)
    mass = u @ np.diag(np.geomspace(1, 1e-4, n)) @ u.T
    return -(w @ w.T / n + np.eye(n) / 10) + (w - w.T) / (2 * n**0.5), -covariance(rng, n), (mass + mass.T) / 2


def by_inverse_of_descriptor(a, q, e):
    """a x eᴴ + e x aᴴ = q: (e⁻¹ a) x + x (e⁻¹ a)ᴴ = e⁻¹ q e⁻ᴴ."""
    inverse = np.linalg.inv(e)
    return sl.solve_continuous_lyapunov(inverse @ a, inverse @ q @ inverse.T)


def h2_by_scipy(a, b, c):
    return np.sqrt(np.trace(c @ sl.solve_continuous_lyapunov(a, -b @ b.T) @ c.T))


def lqg_values_by_scipy(a, b, c):
    """The largest ones only: the others are lost in the product of the solutions."""
    one = np.eye(3)
    w, x = sl.solve_continuous_are(a, b, c.T @ c, one), sl.solve_continuous_are(a.T, c.T, b @ b.T, one)
    return np.sqrt(np.sort(np.linalg.eigvals(x @ w).real)[::-1][:3])


def oscillators(rng, n):
    """A beam's model: n/2 modes with 1 percent of critical damping."""
    w = np.arange(1.0, n // 2 + 1) ** 2
    a = np.block([[0 * np.diag(w), np.diag(w)], [-np.diag(w), -0.02 * np.diag(w)]])
    return a, np.vstack([np.zeros((n // 2, 1)), rng.uniform(1, 2, (n // 2, 1))]), rng.uniform(1, 2, (1, n))


def rod(rng, n):
    """Heat conduction in a rod with an unstable reaction, two heaters and two sensors."""
    a = (n + 1) ** 2 * (np.eye(n, k=1) - 2 * np.eye(n) + np.eye(n, k=-1)) + 30 * np.eye(n)
    b, c = np.zeros((n, 2)), np.zeros((2, n))
    b[: n // 8, 0] = b[n // 2 : 5 * n // 8, 1] = 1
    c[0, n // 4 : 3 * n // 8] = c[1, 3 * n // 4 : 7 * n // 8] = 1 / n
    return a, b, c


def hinf_by_bisection(a, b, c, tol=1e-10):
    """The algorithm of python-control's `norm`: halve an interval of levels by the eigenvalues of a Hamiltonian matrix."""

    def crossed(g):
        values = sl.eigvals(np.block([[a, b @ b.T / g], [-c.T @ c / g, -a.T]]))
        return (np.abs(values.real) < 1e-10 * np.abs(values).max()).any()

    low, high = 0.0, 1.0
    while crossed(high):
        low, high = high, 2 * high
    while high - low > tol * high:
        middle = (low + high) / 2
        low, high = (middle, high) if crossed(middle) else (low, middle)
    return np.array((low + high) / 2)


def same_gramian(ours, theirs, arguments):
    return difference(ours @ ours.T, theirs), 1e-8


def by_elimination(a, b, c, d, e, f):
    """a x - y b = c, d x - y e = f: y = (a x - c) b⁻¹, then x by `by_inverses`."""
    inverse = np.linalg.inv(b)
    x = by_inverses(d, np.eye(len(b)), a, -inverse @ e, f - c @ inverse @ e)
    return x, (a @ x - c) @ inverse


CASES = [
    Case(
        "solve_sylvester, separable spectra", SCIPY, "solve_sylvester", separable,
        matsign.solve_sylvester, sl.solve_sylvester, SIZES, agree(1e-8),
    ),
    Case(
        "solve_sylvester, separable spectra", SLICOT, "SB04MD", separable,
        matsign.solve_sylvester, slicot.sylvester, SLICOT_SIZES, agree(1e-8),
    ),
    Case(
        "solve_sylvester, mixed spectra", SCIPY, "solve_sylvester", mixed,
        matsign.solve_sylvester, sl.solve_sylvester, SIZES, agree(1e-8),
    ),
    Case(
        "solve_continuous_lyapunov, stable", SCIPY, "solve_continuous_lyapunov", stable,
        matsign.solve_continuous_lyapunov, sl.solve_continuous_lyapunov, SIZES, agree(1e-8),
    ),
    Case(
        "solve_continuous_lyapunov, mass matrix of condition 1e4", SCIPY, "inv, solve_continuous_lyapunov", with_mass,
        lambda a, q, e: matsign.solve_continuous_lyapunov(a, q, e=e), by_inverse_of_descriptor, SHORTER, agree(1e-6),
    ),
    Case(
        "solve_continuous_lyapunov, stable", SLICOT, "SB03MD", stable,
        matsign.solve_continuous_lyapunov, slicot.lyapunov, SLICOT_SIZES, agree(1e-8),
    ),
    Case(
        "solve_discrete_lyapunov, radius 0.9", SCIPY, "solve_discrete_lyapunov", inside,
        matsign.solve_discrete_lyapunov, sl.solve_discrete_lyapunov, SIZES, agree(1e-8),
    ),
    Case(
        "solve_discrete_lyapunov, radius 0.9", SLICOT, "SB03MD", inside,
        matsign.solve_discrete_lyapunov, slicot.stein, SLICOT_SIZES, agree(1e-8),
    ),
    Case(
        "lyapunov_factor, 3 inputs", SCIPY, "solve_continuous_lyapunov", three_inputs,
        matsign.lyapunov_factor, lambda a, b: sl.solve_continuous_lyapunov(a, -b @ b.T),
        sizes(usual=(256,), long=(512, 1024)), same_gramian, "relative difference of the Gramians",
    ),
    Case(
        "riccati_factor, unstable, 2 inputs and outputs", SCIPY, "solve_continuous_are", rod,
        matsign.riccati_factor, lambda a, b, c: sl.solve_continuous_are(a, b, c.T @ c, np.eye(2)),
        sizes(usual=(128,), long=(256, 512)), same_gramian, "relative difference of the solutions",
    ),
    Case(
        "gramian, 3 inputs", SCIPY, "solve_continuous_lyapunov", three_inputs,
        matsign.gramian, lambda a, b: sl.solve_continuous_lyapunov(a, -b @ b.T), SHORTER, agree(1e-8),
    ),
    Case(
        "h2_norm, 3 inputs and outputs", SCIPY, "solve_continuous_lyapunov",
        lambda rng, n: (*three_inputs(rng, n), gaussian(rng, 3, n)), matsign.h2_norm, h2_by_scipy, SHORTER, agree(1e-8),
    ),
    Case(
        "lqg_balanced_truncation, 3 inputs and outputs", SCIPY, "solve_continuous_are, eigvals",
        lambda rng, n: (*three_inputs(rng, n), gaussian(rng, 3, n)),
        lambda a, b, c: matsign.lqg_balanced_truncation(a, b, c, 4).values[:3], lqg_values_by_scipy,
        sizes(usual=(64,), long=(256,)), agree(1e-6),
    ),
    Case(
        "hinf_norm, lightly damped", SCIPY, "eigvals, bisection", oscillators,
        lambda a, b, c: matsign.hinf_norm(a, b, c)[0], hinf_by_bisection,
        sizes(quick=(16,), usual=(64,), long=(348,)), agree(1e-8),
    ),
    Case(
        "solve_discrete_sylvester, radii 0.9", SCIPY, "inv, solve_sylvester", discrete(0.9),
        matsign.solve_discrete_sylvester, by_cayley, SHORTER, agree(1e-8),
    ),
    Case(
        "solve_discrete_sylvester, radii 0.99", SCIPY, "inv, solve_sylvester", discrete(0.99),
        matsign.solve_discrete_sylvester, by_cayley, FEW, agree(1e-8),
    ),
    Case(
        "solve_discrete_sylvester, radii 2", SCIPY, "inv, solve_sylvester", discrete(2.0),
        matsign.solve_discrete_sylvester, by_cayley, FEW, agree(1e-8),
    ),
    Case(
        "solve_generalized_sylvester, separable", SCIPY, "inv, solve_sylvester", generalized,
        matsign.solve_generalized_sylvester, by_inverses, SHORTER, agree(1e-8),
    ),
    Case(
        "solve_generalized_sylvester, Gaussian", SCIPY, "inv, solve_sylvester",
        lambda rng, n: tuple(gaussian(rng, n, n) for _ in range(5)),
        matsign.solve_generalized_sylvester, by_inverses, FEW, agree(1e-8),
    ),
    Case(
        "solve_sylvester_pair, separable", SCIPY, "inv, solve_sylvester", pair,
        matsign.solve_sylvester_pair, by_elimination, SHORTER, agree(1e-8),
    ),
]  # fmt: skip
