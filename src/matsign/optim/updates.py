"""What a step of Muon changes on one device: the parameters of a group along their momenta, or along a manifold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch  # noqa: TID251

from matsign.optim.batching import Layout
from matsign.optim.groups import Group, rate_on
from matsign.optim.manifold_updates import move_on_manifold

Tensor = torch.Tensor


class Updates(NamedTuple):
    """The matrix parameters of a group that have a gradient, and the momenta whose msign is their step."""

    group: Group
    layout: Layout
    params: list[Tensor]
    momenta: Sequence[Tensor]


def apply_signs(update: Updates, signs: list[list[Tensor]]) -> None:
    """Decay, then the step, for all parameters of equal rate at once: in a group the rate depends on the shape."""
    group = update.group
    by_factor: dict[tuple[torch.device, float], tuple[list[Tensor], list[Tensor]]] = {}
    for p, blocks in zip(update.params, signs, strict=True):
        factor, step = update.layout.update(blocks, group["adjust_lr_fn"], p.shape)
        params, steps = by_factor.setdefault((p.device, factor), ([], []))
        params.append(p)
        steps.append(step)
    for (device, factor), (params, steps) in by_factor.items():
        rate = rate_on(group["lr"], device)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
        if isinstance(rate, Tensor):  # a rate that is not read
            torch._foreach_add_(params, torch._foreach_mul(steps, -factor * rate))
        else:
            torch._foreach_add_(params, steps, alpha=-factor * rate)


def apply_on_manifold(update: Updates) -> None:
    """The step and the way back to the manifold, for the parameters of one device at once."""
    by_device: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
    for p, u in zip(update.params, update.momenta, strict=True):
        params, momenta = by_device.setdefault(p.device, ([], []))
        params.append(p)
        momenta.append(u)
    for device, (params, momenta) in by_device.items():
        move_on_manifold(update.group, update.layout, rate_on(update.group["lr"], device), params, momenta)
