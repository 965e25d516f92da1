"""Steps in CUDA graphs: what must hold while one is captured, so that its replays are right."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch  # noqa: TID251

from matsign.backends import torch as torch_backend
from matsign.optim.groups import Group, momentum_dtype_of, parameter_name
from matsign.optim.sharding import is_sharded

Tensor = torch.Tensor


def check_capture(groups: list[Group], states: MutableMapping[Tensor, dict[str, Any]]) -> None:
    """A RuntimeError, before anything changes, for a step that a CUDA graph captures and that it would replay wrongly."""
    if not torch_backend.capturing():
        return
    for index, group in enumerate(groups):
        for k, p in enumerate(group["params"]):
            reason = None if p.grad is None else _wrong_in_replays(group, p, states.get(p))
            if reason:
                raise RuntimeError(f"a CUDA graph cannot contain this step: {parameter_name(group, index, k)} {reason}")


def _wrong_in_replays(group: Group, p: Tensor, state: dict[str, Any] | None) -> str | None:
    """Why the replays of a captured step would be wrong for a parameter; None if they are right."""
    lr = group["lr"]
    if not group.get("capturable"):
        return "is in a group without capturable=True"
    if is_sharded(p):
        return "is a DTensor, whose step asks the other processes whether they agree"
    if isinstance(lr, Tensor) and lr.device != p.device:
        return f"is on {p.device}, and its lr is a tensor on {lr.device}, whose changes a graph would not see"
    if not state or _is_replaced(group, p, state):
        return "has no state of its dtype and device yet; take a step before the graph is captured"
    return None


def _is_replaced(group: Group, p: Tensor, state: dict[str, Any]) -> bool:
    """Whether the step would put other tensors into the state, where every replay has to find those of the last one."""
    if group["algorithm"] == "adamw":
        return bool(state["step"].device != p.device)
    kept, gradient = state["momentum_buffer"].dtype, p if p.grad is None else p.grad
    return bool(kept != (momentum_dtype_of(group) or torch.promote_types(kept, gradient.dtype)))
