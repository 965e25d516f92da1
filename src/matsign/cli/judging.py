"""Run one row of the tour: its residual, its distance to the reference, its time and that of SciPy."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from matsign import certify
from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.cli.identities import Row

# The smallest limit of a distance, in units of rounding: 1e-12 in double precision.
_FLOOR = 4500


@dataclass(frozen=True)
class Verdict:
    """The result of a row; `trouble` is the reason if there are no numbers."""

    row: Row
    method: str = ""
    residual: float = np.nan
    residual_limit: float = np.nan
    distance: float = np.nan
    distance_limit: float = np.nan
    seconds: float = np.nan
    peer_seconds: float = np.nan
    trouble: str = ""

    @property
    def passed(self) -> bool:
        """Whether both numbers are within their limits; NaN is not."""
        return self.residual <= self.residual_limit and self.distance <= self.distance_limit

    @property
    def size(self) -> str:
        """The shapes of the inputs, such as "200×200, 100×100"."""
        shapes = dict.fromkeys("×".join(map(str, a.shape)) for a in self.row.source.arrays)
        return ", ".join(shapes)


def judge(row: Row, backend: Backend) -> Verdict:
    """Run a row on the arrays of a library; an error becomes the `trouble` of its verdict."""
    try:
        return _judge(row, backend)
    except (ArithmeticError, TypeError, ValueError) as error:  # LinAlgError is a ValueError
        return Verdict(row, trouble=" ".join(str(error).split()))


def _judge(row: Row, backend: Backend) -> Verdict:
    arrays = tuple(backend.asarray(a) for a in row.source.arrays)
    exact = tuple(_wide(a) for a in arrays)  # as rounded to the dtype of the library, in double precision
    eps = backend.eps(arrays[0])
    value, certificate = certify(row.f)(*arrays, **row.options)
    values = tuple(_wide(v) for v in (value if isinstance(value, tuple) else (value,)))
    reference = row.reference(*exact)
    steps = f"{certificate.iterations} steps" if certificate.iterations else "direct"
    n = max(max(a.shape) for a in exact)
    return Verdict(
        row,
        method=f"{row.options.get('method', 'auto')}, {steps}",
        residual=row.residual(values, *exact),
        residual_limit=eps * max(10, n),
        distance=apart(row.then(values, exact), reference),
        distance_limit=eps * max(_FLOOR, np.sqrt(n) * condition(row.reference, exact, reference)),
        seconds=_best(lambda: _parts(row.f(*arrays, **row.options))),
        peer_seconds=_best(lambda: row.peer(*row.source.arrays)),
    )


def _wide(x: Any) -> Array:
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _parts(value: Any) -> list[Array]:
    """The results as NumPy arrays, which waits for a library that computes asynchronously."""
    return [np.asarray(v) for v in (value if isinstance(value, tuple) else (value,))]


def apart(values: Arrays, reference: Arrays) -> float:
    """The largest relative distance between corresponding matrices."""
    return max(
        float(np.linalg.norm(x - y) / (np.linalg.norm(y) or 1.0)) for x, y in zip(values, reference, strict=True)
    )


def condition(reference: Callable[..., Arrays], arrays: Arrays, value: Arrays) -> float:
    """The condition number, estimated from the reference: an error of eps in the input may change the result by eps times it.

    Both the result and the reference have the errors of sums of n terms, as if the input had an error of about √n eps.

    The derivative along a random direction is 1/√N of its norm in N variables, to within a small factor and with high
    probability (Kenney & Laub 1994, "Small-sample statistical condition estimates").
    """
    random, size = np.random.default_rng(0), 2.0**-26
    samples = (tuple(a + size * _direction(a, random) for a in arrays) for _ in range(2))
    slope = max(apart(reference(*sample), value) for sample in samples) / size
    return float(slope * np.sqrt(sum(a.size for a in arrays)))


def _direction(m: Array, random: np.random.Generator) -> Array:
    """A random matrix of the norm of M that keeps its symmetry, its rank and its null spaces."""
    e: Any = random.standard_normal(m.shape)
    if np.iscomplexobj(m):
        e = e + 1j * random.standard_normal(m.shape)
    u, s, vh = np.linalg.svd(m, full_matrices=False)
    rank = int((s > max(m.shape) * np.finfo(float).eps * s[0]).sum())
    if rank < min(m.shape):
        u, vh = u[:, :rank], vh[:rank]
        e = u @ (u.conj().T @ e @ vh.conj().T) @ vh
    if np.array_equal(m, m.conj().T):
        e = e + e.conj().T  # the projections on the left and on the right are then the same
    return np.asarray(e * (np.linalg.norm(m) / (np.linalg.norm(e) or 1.0)))


def _best(run: Callable[[], Any], budget: float = 0.3, most: int = 20) -> float:
    """The shortest of a few runs; a slow run is not repeated."""
    times: list[float] = []
    while len(times) < most and (sum(times) < budget or not times):
        start = time.perf_counter()
        # SciPy's signm prints and warns if its result may be inaccurate.
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            run()
        times.append(time.perf_counter() - start)
    return min(times)
