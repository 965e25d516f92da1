"""The iterates of the library's own iterations, for the pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import load
from matsign.cli.inputs import Inputs
from matsign.iterations.block_structures import AntiDiagonal, Dense, Dilation, Riccati, Triangular, odd_step
from matsign.iterations.minimax import lifting
from matsign.iterations.newton import newton, purify

_EPS = float(np.finfo(float).eps)


class Recorder:
    """The NumPy backend, recording the iterate after every step of every loop."""

    def __init__(self) -> None:
        self.numpy: Any = load("numpy")
        self.iterates: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.numpy, name)

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """The loop of the backend, recording the first entry of every new state."""

        def record(state: Any) -> Any:
            new, active = step(state)
            self.iterates.append(new[0])
            return new, active

        return self.numpy.loop(record, state, limit)


class Flow(NamedTuple):
    """The iterates of one block structure as assembled matrices, beginning with the matrix itself."""

    name: str
    iterates: list[Array]

    def residuals(self) -> list[float]:
        """‖X² - I‖ / ‖X‖² after each step."""
        eye = np.eye(len(self.iterates[0]))
        return [float(np.linalg.norm(x @ x - eye) / np.linalg.norm(x) ** 2) for x in self.iterates]


def flow(name: str, x: Any) -> Flow:
    """Newton's iteration from a block structure to its sign."""
    backend = Recorder()
    with np.errstate(all="ignore"):
        newton(backend, x)
    return Flow(name, [y.dense(backend)[0] for y in (x, *backend.iterates)])


def dense(m: Array) -> Flow:
    """Newton's iteration for one matrix without structure."""
    return flow("", Dense(m[None]))


def structures(inputs: Inputs) -> list[Flow]:
    """Newton's iteration on every block structure, each from an input of the tour."""
    (m,), (c,), (corner,) = inputs.general.arrays, inputs.covariance.arrays, inputs.corners[0].arrays
    a, b, q = inputs.triangular.arrays
    plant, _ = inputs.plants[0]
    ra, rb, rc, rd = plant.arrays
    return [
        flow(f"Dense: {inputs.general.text}", Dense(m[None])),
        flow(f"Triangular: {inputs.triangular.text}", Triangular(-a[None], q[None], b[None])),
        flow(f"AntiDiagonal: {inputs.covariance.text}", AntiDiagonal(c[None], np.eye(len(c))[None])),
        flow(f"Dilation: {inputs.corners[0].text}", Dilation(corner[None])),
        flow(f"Riccati: {plant.text}", Riccati(ra[None], rc[None], rd[None], rb[None])),
    ]


class Lift(NamedTuple):
    """Singular values, one row for each step, and the number of steps before purification."""

    values: Array
    lifted: int


def lift(m: Array) -> Lift:
    """The singular values of M through the polynomial method: lifting, purification, polish."""
    backend = Recorder()
    schedule = lifting(max(m.shape) * _EPS, _EPS, 2.0)
    x = Dilation(m[None] / np.linalg.norm(m, 2))
    iterates = [x]
    for step in schedule:
        iterates.append(odd_step(backend, iterates[-1], *step))
    last = purify(backend, iterates[-1], backend.ones(x.c))
    iterates += [*backend.iterates, last.value]
    return Lift(np.array([np.linalg.svd(y.c[0], compute_uv=False) for y in iterates]), len(schedule))
