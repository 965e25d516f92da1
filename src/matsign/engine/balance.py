"""Balancing: a change of the units of the states, a → 2^-e a 2^e, that makes rows and columns alike in size.

A power of two costs no rounding. What is computed from a balanced matrix no longer depends on the units that the
caller's states happened to have (Parlett & Reinsch 1969).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from matsign.backends import Backend, lapack

Array = Any

# Rows and columns within this factor are left alone.
_ALIKE = 32.0


def unbalanced(be: Backend, a: Array) -> Array:
    """Which members have a row much larger or smaller than the column of the same index."""
    xp = be.xp
    size = xp.abs(a)
    row, col = xp.sum(size, axis=-1), xp.sum(size, axis=-2)
    return ((row > _ALIKE * col) | (col > _ALIKE * row)).any(-1)


def exponents(be: Backend, a: Array) -> Array:
    """e (B, n), integer: the balanced matrix is 2^-e a 2^e; zero for members that are balanced already."""
    none = be.xp.zeros_like(a[:, 0, :], dtype=be.xp.int32)
    return be.split(
        unbalanced(be, a),
        lambda a, none: be.host(_by_lapack, none, a),
        lambda a, none: none,
        *(a, none),
    )


def rescale(be: Backend, a: Array, e: Array) -> Array:
    """2^-e a 2^e."""
    return be.ldexp(a, e[:, None, :] - e[:, :, None])


def _by_lapack(stack: Array) -> Array:
    return np.stack([np.frexp(lapack.balance(a))[1] - 1 for a in stack]).astype(np.int32)
