"""Riccati equations with half as many inputs as states."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sl
from scipy.integrate import solve_ivp

import matsign
from bench.case import Case, agree
from bench.cases import sizes, slicot
from bench.cases.matrices import gaussian, plant, right
from bench.peers import SCIPY, SLICOT

SIZES = sizes(quick=(32,), usual=(8, 64, 128), long=(256,))
SLICOT_SIZES = sizes(quick=(32,), usual=(128,), long=(256,))


def regulator(rng, n):
    return plant(rng, n, n)


def nonsymmetric(rng, n):
    return -right(rng, n, n), right(rng, n, n), gaussian(rng, n, n) / n, gaussian(rng, n, n) / n


def by_schur(a, b, c, d):
    """x d x + x b - a x - c = 0: [x; I] spans the invariant subspace of [[a, c], [d, b]] in the right half plane."""
    n = len(a)
    _, z, _ = sl.schur(np.block([[a, c], [d, b]]), sort="rhp")
    return z[:n, : len(b)] @ np.linalg.inv(z[n:, : len(b)])


def both_by_scipy(a, b, q, r):
    return sl.solve_continuous_are(a, b, q, r), -sl.solve_continuous_are(-a, -b, q, r)


def both_discrete_by_scipy(a, b, q, r):
    """The second with time reversed: y = -x₋ solves the equation with a⁻¹, and with the cross term that this brings."""
    n, inverse = len(a), np.linalg.inv(a)
    b1 = -inverse @ b
    weights = np.block([[inverse, b1], [np.zeros((b.shape[1], n)), np.eye(b.shape[1])]])
    cost = weights.T @ np.block([[q, np.zeros_like(b)], [np.zeros_like(b.T), r]]) @ weights
    second = sl.solve_discrete_are(inverse, b1, cost[:n, :n], cost[n:, n:], s=cost[:n, n:])
    return sl.solve_discrete_are(a, b, q, r), -second


def differential(rng, n):
    return *plant(rng, n, n), np.eye(n)


def by_integrator(a, b, q, r, xf):
    """x at the time 1 before the end, in steps; the exponential of the Hamiltonian matrix would lose its digits."""
    g, n = b @ np.linalg.solve(r, b.T), len(a)

    def rate(_, x):
        x = x.reshape(n, n)
        return (a.T @ x + x @ a - x @ g @ x + q).ravel()

    return solve_ivp(rate, (0, 1), xf.ravel(), "LSODA", rtol=1e-10, atol=1e-10).y[:, -1].reshape(n, n)


HORIZON, PLANTS = 50, 100


def plants(rng, n):
    """A batch of plants, each with its own a and b."""
    b, q, r = plant(rng, n, n)[1:]
    return np.stack([gaussian(rng, n, n) for _ in range(PLANTS)]) / n**0.5, np.stack([b] * PLANTS), q, r


def by_recursion(a, b, q, r):
    """The gains and the solutions of each plant, step by step."""
    gains, solutions = np.empty((PLANTS, HORIZON, *b.shape[:0:-1])), np.empty((PLANTS, HORIZON + 1, *q.shape))
    for states, inputs, gain, x in zip(a, b, gains, solutions, strict=True):
        x[-1] = 0
        for k in reversed(range(HORIZON)):
            weight, right = r + inputs.T @ x[k + 1] @ inputs, inputs.T @ x[k + 1] @ states
            gain[k] = sl.solve(weight, right, assume_a="pos")
            x[k] = q + states.T @ x[k + 1] @ states - right.T @ gain[k]
    return gains, solutions


CASES = [
    Case(
        "dlqr_finite_horizon", SCIPY, "a loop with solve", plants,
        lambda *arrays: tuple(matsign.dlqr_finite_horizon(*arrays, HORIZON)), by_recursion,
        sizes(quick=(8,), usual=(32,), long=(64,)), agree(1e-6),
    ),
    Case(
        "solve_differential_riccati", SCIPY, "solve_ivp", differential,
        lambda *arrays: matsign.solve_differential_riccati(*arrays, 1.0), by_integrator,
        sizes(quick=(8,), usual=(32,), long=(64,)), agree(1e-6),
    ),
    Case(
        "extremal_solutions", SCIPY, "solve_continuous_are twice", regulator,
        matsign.extremal_solutions, both_by_scipy, SIZES, agree(1e-8),
    ),
    Case(
        "discrete_extremal_solutions", SCIPY, "solve_discrete_are twice", regulator,
        matsign.discrete_extremal_solutions, both_discrete_by_scipy, SIZES, agree(1e-8),
    ),
    Case(
        "solve_continuous_are", SCIPY, "solve_continuous_are", regulator,
        matsign.solve_continuous_are, sl.solve_continuous_are, SIZES, agree(1e-8),
    ),
    Case(
        "solve_continuous_are", SLICOT, "SG02AD", regulator,
        matsign.solve_continuous_are, slicot.care, SLICOT_SIZES, agree(1e-8),
    ),
    Case(
        "solve_discrete_are", SCIPY, "solve_discrete_are", regulator,
        matsign.solve_discrete_are, sl.solve_discrete_are, SIZES, agree(1e-8),
    ),
    Case(
        "solve_discrete_are", SLICOT, "SG02AD", regulator,
        matsign.solve_discrete_are, slicot.dare, SLICOT_SIZES, agree(1e-8),
    ),
    Case(
        "solve_riccati, not symmetric", SCIPY, "schur", nonsymmetric,
        matsign.solve_riccati, by_schur, sizes(quick=(32,), usual=(128,), long=(256,)), agree(1e-8),
    ),
]  # fmt: skip
