"""Arrays with any number of leading axes as stacks with one, for libraries whose arrays are on one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matsign._typing import Array


def as_stacks(xp: Any, arrays: Sequence[Any], batch: tuple[int, ...], own: Sequence[int]) -> tuple[Any, ...]:
    """Each array with the leading axes `batch` as one; None stays None."""
    return tuple(None if x is None else _as_stack(xp, x, batch, k) for x, k in zip(arrays, own, strict=True))


def _as_stack(xp: Any, x: Array, batch: tuple[int, ...], own: int) -> Array:
    if x.ndim == own and batch == ():
        return x.reshape((1, *x.shape))
    shape = tuple(x.shape[x.ndim - own :])
    return xp.broadcast_to(x, batch + shape).reshape((math.prod(batch), *shape))
