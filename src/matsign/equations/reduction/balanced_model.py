"""The record of a model that is reduced by the solutions of Riccati equations."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Generic, T


class BalancedModel(NamedTuple, Generic[T]):
    """Hold a reduced model and its characteristic values.

    The result of `lqg_balanced_truncation` and `bounded_real_balanced_truncation`: a named tuple of the model
    ẋ = a x + b u, y = c x + d u with r states.

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
    values : array (..., n)
        Characteristic values of the full model, the largest first.

    See Also
    --------
    lqg_balanced_truncation : Compute the model for a controller.
    bounded_real_balanced_truncation : Compute it for a bound of the gain.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import lqg_balanced_truncation
    >>> small = lqg_balanced_truncation(np.array([[1.0, 2.0], [0.0, -3.0]]), [1.0, 1.0], [1.0, 1.0], 1)
    >>> small._fields, small.a.shape, small.values.shape
    (('a', 'b', 'c', 'd', 'values'), (1, 1), (2,))
    >>> bool(small.a[0, 0] > 0)
    True
    """

    a: T
    b: T
    c: T
    d: T
    values: T
