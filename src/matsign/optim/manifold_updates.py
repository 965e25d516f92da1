"""Updates of Muon for weights on a manifold: a step along the manifold, and the way back to it.

For a weight w, R its radius and u what a step goes along, with W the nearest point of the manifold to w / R:

    w ← R retract(W - lr A),        A the steepest tangent at W for u (`manifolds`).

On the Stiefel manifold retract is msign, and the tangents make W - lr A of full rank; on the spectral sphere it is the division
by the largest singular value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch  # noqa: TID251

from matsign.functions.manifolds.steps import spectral_sphere_step, stiefel_step
from matsign.functions.polar.polar import msign
from matsign.optim.batching import Layout
from matsign.optim.manifold_options import GAP

Tensor = torch.Tensor


def check_weights(manifold: str, layout: Layout, p: Tensor, name: str) -> None:
    """A ValueError for a weight that has no nearest point on the manifold."""
    for x in layout.matrices(p.detach()):
        if not x.numel():
            continue
        finite = x.isfinite().all(-1).all(-1)
        values = torch.linalg.svdvals(_wide(x)[finite])
        eps = max(x.shape[-2:]) * torch.finfo(values.dtype).eps
        if manifold == "stiefel" and (values[:, -1] <= eps * values[:, 0]).any():
            raise ValueError(
                f"Muon: {name} has dependent rows or columns, and so no nearest point on the Stiefel manifold; "
                "initialise it by torch.nn.init.orthogonal_"
            )
        if manifold == "spectral_sphere" and (values[:, 0] == 0).any():
            raise ValueError(f"Muon: {name} has a zero matrix, which has no nearest point on the spectral sphere")


def move_on_manifold(
    group: dict[str, Any], layout: Layout, rate: float | Tensor, params: Sequence[Tensor], momenta: Sequence[Tensor]
) -> None:
    """Update these parameters of a group; matrices of one shape and dtype are one stack."""
    weights = [layout.matrices(p) for p in params]
    along = [layout.matrices(u) for u in momenta]
    places: dict[Any, list[tuple[int, int]]] = {}
    for k, stacks in enumerate(weights):
        for j, x in enumerate(stacks):
            if x.numel():
                places.setdefault((x.shape[-2:], x.dtype, x.device), []).append((k, j))
    for members in places.values():
        w = torch.cat([weights[k][j] for k, j in members])
        moved = _new_matrices(group, rate, w, torch.cat([along[k][j] for k, j in members]).to(w.dtype))
        for (k, j), x in zip(members, torch.split(moved, [len(weights[k][j]) for k, j in members]), strict=True):
            weights[k][j] = x
    for p, stacks in zip(params, weights, strict=True):
        if p.numel():
            p.copy_(layout.parameter(stacks, p.shape))


def _new_matrices(group: dict[str, Any], rate: float | Tensor, w: Tensor, u: Tensor) -> Tensor:
    """New matrices; NaN for those with a weight or a gradient that is not finite."""
    manifold, gap = group["manifold"], GAP if group["tol"] is None else group["tol"]
    step = stiefel_step if manifold == "stiefel" else spectral_sphere_step
    point, u = _retract(manifold, _wide(w)), _wide(u)
    finite = (point.isfinite() & u.isfinite()).all(-1).all(-1)[:, None, None]
    start = torch.eye(*w.shape[-2:], dtype=point.dtype, device=point.device)
    a = step(torch.where(finite, point, start), torch.where(finite, u, 0.0), gap=gap).step
    moved = _retract(manifold, point - rate * a)
    return torch.where(finite, group["radius"] * moved, math.nan).to(w.dtype)


def _retract(manifold: str, x: Tensor) -> Tensor:
    """The nearest point of the manifold with radius 1."""
    if manifold == "stiefel":
        return msign(x, errors="nan")
    finite = x.isfinite().all(-1).all(-1)[:, None, None]
    return x / torch.linalg.matrix_norm(torch.where(finite, x, 1.0), 2)[:, None, None]


def _wide(x: Tensor) -> Tensor:
    """In single precision if it is in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
