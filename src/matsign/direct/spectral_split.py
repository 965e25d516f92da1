"""The invariant subspace of the eigenvalues that are not stable, from an ordered Schur form.

With a = u [[r, f], [0, t]] uᴴ, the stable eigenvalues in r, and the solution y of r y - y t = -f, the columns of v = u [y; I]
span the subspace, and P = v [0 I] uᴴ projects on it along that of the stable eigenvalues (Golub & Van Loan 2013, section 7.6).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from matsign._typing import Array
from matsign.backends import lapack

# A larger projector loses so many digits that nothing is gained by the split.
_LARGEST_PROJECTOR = 1e-2


class Split(NamedTuple):
    """For each member the projector P, a line between both groups of eigenvalues, and bases that change smoothly with a.

    ``columns`` and ``rows`` hold unit vectors: P columns is a basis of the subspace, rowsᵀ P one of the row vectors. Both have
    as many nonzero columns as the subspace has dimensions.
    """

    projector: Array
    columns: Array
    rows: Array
    line: Array


def right_of_axis(a: Array) -> Split:
    """Eigenvalues in the right half plane and near the imaginary axis."""
    return _split(a, discrete=False)


def outside_circle(a: Array) -> Split:
    """Eigenvalues outside the unit circle and near it."""
    return _split(a, discrete=True)


def _split(a: Array, *, discrete: bool) -> Split:
    zeros = np.zeros_like(a)
    split = Split(zeros, zeros.copy(), zeros.copy(), np.full(len(a), float(discrete), a.real.dtype))
    for k, matrix in enumerate(a):
        _split_member(matrix, Split(*(x[k : k + 1] for x in split)), discrete)
    return split


def _split_member(a: Array, split: Split, discrete: bool) -> None:
    """Fill in one member, unless the two groups cannot be told apart."""
    eps = float(np.finfo(a.dtype).eps)
    a = a.astype(np.result_type(a, np.float64))
    values = lapack.schur(a)[2]
    margin = eps**0.5

    def distance(x: Any) -> Any:
        return np.abs(x) - 1 + margin if discrete else np.real(x) + margin * size

    size = max(np.abs(values).max(initial=0), np.finfo(float).tiny)
    t, u, values, stable = lapack.schur(a, lambda x, y=None: bool(distance(x if y is None else complex(x, y)) < 0))
    if not np.isfinite(t).all() or stable == len(a):
        return
    y = lapack.trsyl(t[:stable, :stable], t[stable:, stable:], -t[:stable, stable:], -1) if stable else t[:0]
    left = u[:, stable:].conj().T
    right = u[:, :stable] @ y + u[:, stable:]
    projector = right @ left
    if not eps * np.linalg.norm(projector) < _LARGEST_PROJECTOR * np.linalg.norm(left):
        return
    split.projector[0] = projector
    for basis, units in ((left, split.columns), (right.conj().T, split.rows)):
        pivots = scipy.linalg.qr(basis, mode="r", pivoting=True, check_finite=False)[1][: len(basis)]
        units[0, pivots, np.arange(len(pivots))] = 1
    edges = (np.abs if discrete else np.real)(values)
    inner = edges[:stable].max() if stable else 0.0 if discrete else edges.min() - size
    split.line[0] = (inner + edges[stable:].min()) / 2
