"""One row of the tour, run and judged: its residual, its distance to the reference, its time beside the peer's."""

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

# What a distance may always be, in units of rounding: 1e-12 in double precision.
_FLOOR = 4500


@dataclass(frozen=True)
class Verdict:
    """What came out of a row; `trouble` says why there are no numbers."""

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
    """Run a row on the arrays of a library; whatever goes wrong becomes its verdict."""
    try:
        return _judge(row, backend)
    except (ArithmeticError, TypeError, ValueError) as error:  # LinAlgError is a ValueError
        return Verdict(row, trouble=" ".join(str(error).split()))


def _judge(row: Row, backend: Backend) -> Verdict:
    arrays = tuple(backend.asarray(a) for a in row.source.arrays)
    exact = tuple(_wide(a) for a in arrays)  # what the library was really given, in double precision
    eps = backend.eps(arrays[0])
    value, certificate = certify(row.f)(*arrays, **row.options)
    values = tuple(_wide(v) for v in (value if isinstance(value, tuple) else (value,)))
    reference = row.reference(*exact)
    steps = f"{certificate.iterations} steps" if certificate.iterations else "direct"
    return Verdict(
        row,
        method=f"{row.options.get('method', 'auto')}, {steps}",
        residual=row.residual(values, *exact),
        residual_limit=eps * max(10, *(max(a.shape) for a in exact)),
        distance=apart(row.then(values, exact), reference),
        distance_limit=eps * max(_FLOOR, condition(row.reference, exact, reference)),
        seconds=_best(lambda: _parts(row.f(*arrays, **row.options))),
        peer_seconds=_best(lambda: row.peer(*row.source.arrays)),
    )


def _wide(x: Any) -> Array:
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _parts(value: Any) -> list[Array]:
    """The numbers themselves: a library that computes in the background has finished when they are here."""
    return [np.asarray(v) for v in (value if isinstance(value, tuple) else (value,))]


def apart(values: Arrays, reference: Arrays) -> float:
    """The largest relative distance between corresponding matrices."""
    return max(
        float(np.linalg.norm(x - y) / (np.linalg.norm(y) or 1.0)) for x, y in zip(values, reference, strict=True)
    )


def condition(reference: Callable[..., Arrays], arrays: Arrays, value: Arrays) -> float:
    """The condition number of what is computed, measured on the reference: beyond eps times it, rounding of the input decides.

    A random direction shows 1/√N of the norm of a derivative in N variables, to within a small factor and with high
    probability (Kenney & Laub 1994, "Small-sample statistical condition estimates").
    """
    random, size = np.random.default_rng(0), 2.0**-26
    samples = (tuple(a + size * _direction(a, random) for a in arrays) for _ in range(2))
    shown = max(apart(reference(*sample), value) for sample in samples) / size
    return float(shown * np.sqrt(sum(a.size for a in arrays)))


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
    """The shortest of a few runs; a second is enough for a slow one."""
    times: list[float] = []
    while len(times) < most and (sum(times) < budget or not times):
        start = time.perf_counter()
        # SciPy's signm prints its doubts and warns of them.
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            run()
        times.append(time.perf_counter() - start)
    return min(times)
