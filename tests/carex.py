"""CAREX, a collection of benchmarks for continuous-time algebraic Riccati equations (Abels & Benner 1999), 1 to 20.

Cases 7 to 19 are families; each has its default parameters, which come last, and some milder or smaller. They are computed by
sums and products of numbers, without BLAS, so that every machine gets the same bits.
"""

import numpy as np

from collection import Case, stored


def cases():
    return [*_data(), *_parameters(), *_sizes(), *_data(20)]


def _data(*numbers):
    """1 to 6, or those asked for: models of an aircraft, a distillation column, a reactor, an engine, a rotating axle."""
    for k in numbers or range(1, 7):
        found = stored(f"CAREX {k}", "a", "b", "q", "r")
        yield Case(f"CAREX {k}", **{"r": np.eye(found["b"].shape[1]), **found})


# n = 2 to 4, with a parameter that approaches a singular limit.

PARAMETERS = {
    7: (1.0, 1e-2, 1e-4, 1e-6),
    8: (1.0, 1e-2, 1e-4, 1e-6, 1e-8),
    9: (1e-6, 1.0, 1e2, 1e4, 1e6),
    10: (1.0, 1e-2, 1e-4, 1e-6, 1e-7),
    11: (1.0, 1e-2, 1e-4, 1e-6, 0.0),
    12: (1.0, 1e2, 1e4, 1e6),
    13: (1.0, 1e-2, 1e-4, 1e-6),
    14: (1.0, 1e-2, 1e-4, 1e-6),
}


def _parameters():
    families = {7: _7, 8: _8, 9: _9, 10: _10, 11: _11, 12: _12, 13: _13, 14: _14}
    for k, values in PARAMETERS.items():
        for eps in values:
            yield Case(f"CAREX {k}, ε = {eps:g}", *(np.array(x, float) for x in families[k](eps)))


def _7(eps):
    """An unstable eigenvalue becomes uncontrollable: x grows as 2/ε²."""
    return [[1, 0], [0, -2]], [[eps], [0]], np.ones((2, 2)), [[1]]


def _8(eps):
    """r becomes singular."""
    return np.diag([-0.1, -0.02]), [[0.1, 0], [0.001, 0.01]], [[100, 1000], [1000, 10000]], [[1 + eps, 1], [1, 1]]


def _9(eps):
    """A chain of two integrators in different units."""
    return [[0, eps], [0, 0]], [[0], [1]], np.eye(2), [[1]]


def _10(eps):
    """Eigenvalues of the Hamiltonian matrix at a distance of about ε from the axis."""
    return [[1 + eps, 1], [1, 1 + eps]], np.eye(2), eps**2 * np.eye(2), np.eye(2)


def _11(eps):
    """q is indefinite, and the closed loop has the eigenvalues -ε/2 ± i √(1 - ε²/4): on the axis for ε = 0."""
    a, q = [[3 - eps, 1], [4, 2 - eps]], [[4 * eps - 11, 2 * eps - 5], [2 * eps - 5, 2 * eps - 2]]
    return a, [[1], [1]], q, [[1]]


def reflected(*diagonal):
    """9 V diag V for the reflection V = I - (2/3) 1 1ᵀ, integers if the diagonal has integers."""
    v = 3 * np.eye(3) - 2 * np.ones((3, 3))
    return sum(d * np.outer(v[k], v[k]) for k, d in enumerate(diagonal))


def _12(eps):
    """Graded: x has the eigenvalues of about 2ε², 4ε² and 6ε²."""
    a, q = reflected(eps, 2 * eps, 3 * eps) / 9, reflected(1 / eps, 1, eps) / 9
    return a, np.eye(3), q, eps * np.eye(3)


def _13(eps):
    """A magnetic tape, with time constants of 1 and of ε."""
    a = [[0, 0.4, 0, 0], [0, 0, 0.345, 0], [0, -0.524 / eps, -0.465 / eps, 0.262 / eps], [0, 0, 0, -1 / eps]]
    return a, [[0], [0], [0], [1 / eps]], np.diag([1, 0, 1, 0]), [[1]]


def _14(eps):
    """Two oscillators with the dampings ε and -ε: almost not stabilisable."""
    a = [[-eps, 1, 0, 0], [-1, -eps, 0, 0], [0, 0, eps, 1], [0, 0, -1, eps]]
    return a, np.ones((4, 1)), np.ones((4, 4)), [[1]]


# Of any size.


def _sizes():
    for vehicles in (5, 20):
        yield Case(f"CAREX 15, n = {2 * vehicles - 1}", *_15(vehicles))
    for n in (16, 64):
        yield Case(f"CAREX 16, n = {n}", *_16(n))
    for n, q, r in ((5, 1, 1), (10, 1, 1), (21, 100, 1), (21, 1, 100), (21, 1, 1)):
        note = "" if (q, r) == (1, 1) else f", q = {q}, r = {r}"
        yield Case(f"CAREX 17, n = {n}{note}", *_17(n, q, r))
    for n, conduction in ((20, 0.01), (20, 1.0), (100, 0.01)):
        yield Case(f"CAREX 18, n = {n}, a = {conduction:g}", *_18(n, conduction))
    for masses, damping in ((5, 4.0), (30, 0.1), (30, 4.0)):
        yield Case(f"CAREX 19, n = {2 * masses}, δ = {damping:g}", *_19(masses, damping))


def _15(vehicles):
    """A string of vehicles: their speeds at even places (from 0), the distances between them at odd ones."""
    n = 2 * vehicles - 1
    a, b = np.zeros((n, n)), np.zeros((n, vehicles))
    speeds, distances = np.arange(0, n, 2), np.arange(1, n, 2)
    a[speeds, speeds] = -1
    a[distances, distances - 1], a[distances, distances + 1] = 1, -1
    b[speeds, np.arange(vehicles)] = 1
    return a, b, np.diag(np.where(np.arange(n) % 2, 10.0, 0.0)), np.eye(vehicles)


def _16(n):
    """Circulant: -2 on the diagonal and 1 on both sides of it, around the corner too."""
    k = np.arange(n)
    a = np.zeros((n, n))
    a[k, k], a[k, k - 1], a[k - 1, k] = -2, 1, 1
    return a, np.eye(n), np.eye(n), np.eye(n)


def _17(n, q, r):
    """A chain of integrators: the input acts on the last, the cost on the first."""
    corner = np.zeros((n, n))
    corner[0, 0] = q
    return np.eye(n, k=1), np.eye(n)[:, -1:], corner, np.array([[float(r)]])


def _18(n, conduction):
    """Heat in a rod by linear finite elements, heated and observed on [0.2, 0.3]."""
    k = np.arange(1, n + 1)
    stiffness = conduction * (n + 1) * (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n))
    patch = (_hat(0.3 * (n + 1) - k) - _hat(0.2 * (n + 1) - k)) / (n + 1)
    solved = _mass_solve(np.column_stack([stiffness, patch]))
    return solved[:, :n], solved[:, n:], np.outer(patch, patch), np.eye(1)


def _hat(t):
    """The integral of the hat function over [-1, 1] up to t."""
    t = np.clip(t, -1, 1)
    return np.where(t < 0, (1 + t) * (1 + t) / 2, 1 - (1 - t) * (1 - t) / 2)


def _mass_solve(right):
    """m⁻¹ right for the mass matrix m, tridiagonal with 4 and 1 over 6 (n + 1), row by row."""
    n = len(right)
    x, pivots = 6 * (n + 1) * right, np.empty(n)
    for i in range(n):
        pivots[i] = 4 - (1 / pivots[i - 1] if i else 0)
        if i:
            x[i] -= x[i - 1] / pivots[i - 1]
    for i in reversed(range(n)):
        x[i] = (x[i] - (x[i + 1] if i + 1 < n else 0)) / pivots[i]
    return x


def _19(masses, damping):
    """Masses of 4 in a row, coupled by springs and each damped; forces pull at the ends."""
    springs = 2 * np.eye(masses) - np.eye(masses, k=1) - np.eye(masses, k=-1)
    springs[0, 0] = springs[-1, -1] = 1
    zero, one = np.zeros((masses, masses)), np.eye(masses)
    a = np.block([[zero, one], [-springs / 4, -(damping / 4) * one]])
    b = np.zeros((2 * masses, 2))
    b[masses, 0], b[-1, 1] = 0.25, -0.25
    return a, b, np.eye(2 * masses), np.eye(2)
