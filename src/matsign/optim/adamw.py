"""AdamW for the parameters that are not matrices: torch's function, on state with the names of ``torch.optim.AdamW``."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch  # noqa: TID251
from torch.optim.adamw import adamw  # noqa: TID251
from torch.optim.optimizer import _get_capturable_supported_devices  # noqa: TID251
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices  # noqa: TID251

from matsign.backends.torch import without_values
from matsign.optim.groups import Group, rate_on
from matsign.optim.sharding import is_sharded

Tensor = torch.Tensor
State = MutableMapping[Tensor, dict[str, Any]]


def unfit_for_adamw(group: Group, p: Tensor) -> str | None:
    """Why torch cannot take a step for a parameter with the options of its group; None if it can."""
    if group.get("capturable") and p.device.type not in (devices := _get_capturable_supported_devices()):
        return f"is on {p.device}: AdamW with capturable=True is for parameters on {', '.join(devices)}"
    if group.get("fused") and p.device.type not in (devices := _get_fused_kernels_supported_devices()):
        return f"is on {p.device}: AdamW with fused=True is for parameters on {', '.join(devices)}"
    if group.get("foreach") and isinstance(group["lr"], Tensor) and not group.get("capturable"):
        return "is in a group with foreach=True and a tensor as lr, which needs capturable=True"
    if group.get("fused") and not p.is_floating_point():
        return f"has dtype {p.dtype}: AdamW with fused=True is for real parameters"
    return None


def adamw_step(group: Group, states: State) -> None:
    """A step for the parameters of a group that have a gradient."""
    together: dict[tuple[torch.device, Any], list[Tensor]] = {}  # torch's function takes no mixture of meshes
    for p in group["params"]:
        if p.grad is not None:
            add_state(group, p, states[p])
            together.setdefault((p.device, p.device_mesh if is_sharded(p) else None), []).append(p)
    for (device, _), params in together.items():
        _step_on(device, params, group, [states[p] for p in params])


def add_state(group: Group, p: Tensor, state: dict[str, Any]) -> None:
    """The state of a parameter before its first step. Its count of steps is on the device only if the group asks for that."""
    on_device = group.get("fused") or group.get("capturable")
    if not state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
        for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group.get("amsgrad") else [])):
            state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    if on_device:
        state["step"] = state["step"].to(p.device)


def _step_on(device: torch.device, params: list[Tensor], group: Group, states: list[dict[str, Any]]) -> None:
    capturable, amsgrad, lr = bool(group.get("capturable")), bool(group.get("amsgrad")), rate_on(group["lr"], device)
    if isinstance(lr, Tensor) and without_values(lr) and not capturable:
        lr = 1.0  # torch would read it, and no tensor here has a value
    adamw(
        params,
        [p.grad for p in params if p.grad is not None],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [state["max_exp_avg_sq"] for state in states] if amsgrad else [],
        [state["step"] for state in states],
        foreach=group.get("foreach"),
        capturable=capturable,
        fused=group.get("fused"),
        has_complex=any(p.is_complex() for p in params),
        amsgrad=amsgrad,
        beta1=float(group["betas"][0]),
        beta2=float(group["betas"][1]),
        lr=lr,
        weight_decay=float(group["weight_decay"]),
        eps=float(group["eps"]),
        maximize=bool(group.get("maximize")),
    )
