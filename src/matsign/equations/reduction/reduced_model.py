"""The record of a reduced model."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Generic, T


class Reduced(NamedTuple, Generic[T]):
    """Hold a reduced model.

    The result of `balanced_truncation`: a named tuple of the model x' = a x + b u, y = c x + d u with r states, where x' is
    ẋ or the next x, and of all Hankel singular values of the full model.

    Attributes
    ----------
    a : array (..., r, r)
        System matrix.
    b : array (..., r, m)
        Input matrix.
    c : array (..., p, r)
        Output matrix.
    d : array (..., p, m)
        Direct term.
    hsv : array (..., n)
        Hankel singular values of the full model, the largest first; infinite for poles that are not stable.

    See Also
    --------
    balanced_truncation : Compute the model.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import balanced_truncation
    >>> a = np.array([[-1.0, 2.0], [0.0, -3.0]])
    >>> small = balanced_truncation(a, np.ones((2, 1)), np.ones((1, 2)), 1)
    >>> small._fields, small.a.shape, small.hsv.shape
    (('a', 'b', 'c', 'd', 'hsv'), (1, 1), (2,))
    >>> bool(np.linalg.norm(2 * small.a * small.hsv[0] + small.b @ small.b.T) < 1e-14)
    True
    """

    a: T
    b: T
    c: T
    d: T
    hsv: T
