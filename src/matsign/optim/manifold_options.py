"""The options of steps for weights on a manifold, for PyTorch and JAX alike."""

from __future__ import annotations

import math
from typing import Any

from matsign.core.options import real_number, short_repr

MANIFOLDS = (None, "stiefel", "spectral_sphere")
# The relative duality gap of a step if the group has no `tol`, and the smallest `tol`, which every step reaches.
GAP, SMALLEST_GAP = 1e-2, 1e-6


def check_manifold(group: dict[str, Any]) -> None:
    """A ValueError for options that do not fit a group on a manifold."""
    manifold, radius = group.get("manifold"), real_number(group.get("radius", 1.0))
    if manifold not in MANIFOLDS:
        raise ValueError(f"manifold must be one of {', '.join(map(repr, MANIFOLDS))}, got {short_repr(manifold)}")
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive number, got {short_repr(group['radius'])}")
    if manifold is None:
        return
    for name in ("schedule", "adjust_lr_fn"):
        if group[name] is not None:
            raise ValueError(
                f"{name} has no meaning on a manifold; leave it out, or make another group without manifold"
            )
    if group["tol"] is not None and group["tol"] < SMALLEST_GAP:
        raise ValueError(
            f"tol is the duality gap on a manifold, at least {SMALLEST_GAP:g}, got {short_repr(group['tol'])}"
        )
    if group.get("capturable"):
        raise ValueError("capturable=True is not for groups on a manifold: their steps read values of the device")
