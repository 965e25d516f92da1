"""Real matrices: physical models built from their equations, a published aircraft, and measured data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from matsign._typing import NDArray as Array

_DATA = Path(__file__).parent / "data"


def aircraft() -> tuple[Array, Array, Array]:
    """A, B, C of the AFTI/F-16 at 3000 ft and Mach 0.6: speed, angle of attack, pitch rate and pitch; one unstable mode.

    Kapasouris, Athans & Stein, "Design of feedback control systems for unstable plants with saturating actuators",
    IFAC Symposium on Nonlinear Control System Design, 1990.
    """
    a = np.array(
        [
            [-0.0151, -60.5651, 0.0, -32.174],
            [-0.0001, -1.3411, 0.9929, 0.0],
            [0.00018, 43.2541, -0.86939, 0.0],
            [0.0, 0.0, 1.0, 0.0],
        ]
    )
    b = np.array([[-2.516, -13.136], [-0.1689, -0.2514], [-17.251, -1.5766], [0.0, 0.0]])
    return a, b, np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def spring_chain(n: int) -> Array:
    """n masses hung on n springs in a wind that excites the slow modes and damps the fast ones.

    Elongations e and velocities v obey e' = G v, v' = -Gᵀ e - D v with the difference matrix G. D = β (GᵀG - c I) changes
    sign at the frequency √c, put in the middle between two modes.
    """
    g = np.eye(n) - np.eye(n, k=-1)
    k = g.T @ g
    return np.block([[np.zeros((n, n)), g], [-g.T, -0.4 * (k - _between_modes(k) * np.eye(n))]])


def free_chain(n: int) -> tuple[Array, Array]:
    """[[0, I], [-K, -D]] for n masses joined by springs and fixed nowhere, and a basis of all motions but drift.

    No force acts on the centre of mass: zero is a double eigenvalue, not semisimple. D = β K (K - c I) as in `spring_chain`.
    """
    k = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    k[0, 0] = k[-1, -1] = 1
    damping = 0.4 * k @ (k - _between_modes(k) * np.eye(n))
    modes = np.cos(np.pi / n * np.outer(np.arange(n) + 0.5, np.arange(1, n))) * np.sqrt(2 / n)
    return np.block([[np.zeros((n, n)), np.eye(n)], [-k, -damping]]), np.kron(np.eye(2), modes)


def _between_modes(stiffness: Array) -> float:
    """The middle between two neighbouring eigenvalues, halfway up the spectrum."""
    squares = np.linalg.eigvalsh(stiffness)
    return float(squares[len(squares) // 2 - 1 : len(squares) // 2 + 1].mean())


def convection_diffusion(n: int, speed: float) -> Array:
    """-u'' + speed u' on (0, 1) with u = 0 at both ends, central differences, times the mesh width squared."""
    tilt = speed / (2 * (n + 1))
    return 2 * np.eye(n) - (1 - tilt) * np.eye(n, k=1) - (1 + tilt) * np.eye(n, k=-1)


def heat_rod(n: int) -> tuple[Array, Array, Array]:
    """A, B, C of a rod, heated on its first third, cold at its ends, measured in four places; time in diffusion times."""
    a = -((n + 1) ** 2) * convection_diffusion(n, 0.0)
    place = np.arange(1, n + 1) / (n + 1)
    b = (place < 1 / 3).astype(float)[:, None]
    c = np.stack([np.exp(-(((place - p) / 0.05) ** 2)) for p in (0.2, 0.4, 0.6, 0.8)])
    return a, b, c / c.sum(axis=1, keepdims=True)


def interconnect(n: int, frequency: float = 1e9) -> tuple[Array, Array]:
    """Series impedance Z and shunt admittance Y, per metre, of n parallel copper wires on a chip.

    Radius 0.5 µm, 4 µm apart, 2 µm above the ground plane, in silicon dioxide. The characteristic impedance of the bus is
    Z (YZ)^{-1/2}.
    """
    vacuum, oxide, omega = 4e-7 * np.pi, 3.9 * 8.854e-12, 2 * np.pi * frequency
    radius, pitch, height = 0.5e-6, 4e-6, 2e-6
    apart = pitch * np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    near = np.where(apart > 0, apart, radius)
    potential = np.log(np.hypot(apart, 2 * height) / near)
    resistance = 1.7e-8 / (np.pi * radius**2)
    z = resistance * np.eye(n) + 1j * omega * vacuum / (2 * np.pi) * potential
    return z, 1j * omega * 2 * np.pi * oxide * np.linalg.inv(potential)


@cache
def _table(name: str) -> Array:
    return np.loadtxt(_DATA / name, delimiter=",")


def wines() -> tuple[Array, Array]:
    """13 chemical measurements of 178 wines, standardised, and the cultivator of each."""
    table = _table("wine.csv")
    values = table[:, :-1]
    return (values - values.mean(0)) / values.std(0), table[:, -1]


def digits() -> tuple[Array, Array]:
    """300 images of 8 by 8 pixels between 0 and 1, and the digit that each shows."""
    table = _table("digits.csv")
    return table[:, :-1] / 16, table[:, -1].astype(int)


def gradient(width: int) -> Array:
    """The gradient of the cross entropy of 300 digits in the first weights of a network 64 - width - 10, at initialisation.

    Some pixels are zero in all images, and so are their rows: the gradient is rank-deficient, as gradients of real data are.
    """
    pixels, digit = digits()
    random = np.random.default_rng(0)
    first, second = random.standard_normal((64, width)) / 8, random.standard_normal((width, 10)) / np.sqrt(width)
    hidden = np.tanh(pixels @ first)
    score = np.exp(hidden @ second)
    error = score / score.sum(axis=1, keepdims=True) - np.eye(10)[digit]
    return np.asarray(pixels.T @ ((error @ second.T) * (1 - hidden**2)) / len(pixels))
