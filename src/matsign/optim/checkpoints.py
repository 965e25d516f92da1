"""Saved state that `Muon` resumes from: its own, that of ``torch.optim.Muon`` and AdamW, and Keller Jordan's."""

from __future__ import annotations

from typing import Any

import torch  # noqa: TID251

from matsign.backends.torch import without_values
from matsign.optim.batching import QUINTIC, QUINTIC_STEPS
from matsign.optim.groups import Group, check, check_parameters, is_warm, layout_of, normalise_group, parameter_name
from matsign.optim.sharding import describe_sharding
from matsign.optim.warm_steps import count_of_starts

Tensor = torch.Tensor
State = dict[str, Any]

# Momenta, shaped like their parameter, that a parameter's state must hold once there is any.
_MOMENTA = {"muon": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}


def translate(saved: State, groups: list[Group]) -> State:
    """The saved state with all options that these groups have, checked; a ValueError before anything has changed.

    Options that the state does not have keep their values, a step count may be a plain number, and ``use_muon`` sets
    the algorithm.
    """
    loaded = [normalise_group(group) for group in saved["param_groups"]]
    if [len(group["params"]) for group in loaded] != [len(group["params"]) for group in groups]:
        return saved  # torch refuses this with its own message
    state = {key: _with_step_tensor(value) for key, value in saved["state"].items()}
    merged = [_merge(group, options) for group, options in zip(groups, loaded, strict=True)]
    for index, (options, group) in enumerate(zip(merged, groups, strict=True)):
        check(options)
        options["lr"] = _like(group["lr"], options["lr"])
        check(options)  # again, as AdamW takes some options only with a number
        ours = {**options, "params": group["params"], "param_names": group.get("param_names")}
        check_parameters(ours, index)
        for k, (p, key) in enumerate(zip(group["params"], options["params"], strict=True)):
            _check_state(parameter_name(ours, index, k), p, state.get(key, {}), options)
    return {**saved, "state": state, "param_groups": merged}


def _like(lr: float | Tensor, loaded: float | Tensor) -> float | Tensor:
    """The loaded learning rate, as a tensor of the same device if the present one is a tensor."""
    if not isinstance(lr, Tensor):
        return loaded
    return torch.as_tensor(loaded, dtype=lr.dtype, device=lr.device).reshape(lr.shape).clone()


def fill_rates(groups: list[Group], rates: list[float | Tensor]) -> None:
    """Write loaded learning rates into the tensors that were there, which schedulers and the user change in place.

    Groups that had one tensor and get different rates keep the loaded tensors.
    """
    by_tensor: dict[int, tuple[Tensor, list[Group]]] = {}
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(rate, Tensor) and not without_values(rate):
            by_tensor.setdefault(id(rate), (rate, []))[1].append(group)
    for rate, same in by_tensor.values():
        if all(torch.equal(group["lr"], same[0]["lr"]) for group in same):
            rate.detach().copy_(same[0]["lr"])
            for group in same:
                group["lr"] = rate


def _merge(group: Group, loaded: Group) -> Group:
    """The options of a group, replaced by those of a state where it has them."""
    options = {name: value for name, value in group.items() if name not in ("params", "param_names")} | loaded
    if "steps" not in loaded and _of_torch(loaded):
        options |= {"schedule": None, "steps": None, "tol": None}
    return options


def _of_torch(loaded: Group) -> bool:
    """Whether a state of ``torch.optim.Muon`` has Newton-Schulz steps other than its defaults."""
    coefficients, steps = loaded.get("ns_coefficients", QUINTIC), loaded.get("ns_steps", QUINTIC_STEPS)
    return tuple(coefficients) != QUINTIC or steps != QUINTIC_STEPS


def _with_step_tensor(state: Any) -> Any:
    """The state of a parameter with its step count as a tensor, which AdamW needs."""
    if isinstance(state, dict) and "step" in state and not isinstance(state["step"], Tensor):
        return {**state, "step": torch.tensor(float(state["step"]), dtype=torch.float32)}
    return state


def _check_state(name: str, p: Tensor, state: State, options: Group) -> None:
    """A ValueError for state of another parameter or another algorithm."""
    algorithm = options["algorithm"]
    needed = _MOMENTA[algorithm] + (("step",) if algorithm == "adamw" else ())
    if algorithm == "adamw" and options.get("amsgrad"):
        needed += ("max_exp_avg_sq",)
    if not state:
        return
    starts = state.get("singular_vectors")
    if is_warm(options) and starts is not None and starts.numel() != count_of_starts(layout_of(options), p):
        raise ValueError(f"{name} has shape {tuple(p.shape)}; its singular_vectors in the loaded state do not fit it")
    missing = [key for key in needed if not isinstance(state.get(key), Tensor)]
    if missing:
        raise ValueError(
            f"{name} is under {algorithm}, whose state is {', '.join(needed)}; the loaded state has {', '.join(state)}"
        )
    for key in needed:
        if key != "step" and state[key].shape != p.shape:
            raise ValueError(
                f"{name} has shape {tuple(p.shape)}; its {key} in the loaded state has shape {tuple(state[key].shape)}"
            )
        if key != "step" and describe_sharding(state[key]) != describe_sharding(p):
            raise ValueError(
                f"{name} is {describe_sharding(p)}; its {key} in the loaded state is {describe_sharding(state[key])}. Load "
                "it by torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which distributes it"
            )


def uncast(saved: State, groups: list[Group]) -> dict[Tensor, dict[str, Tensor]]:
    """The tensors of Muon's state in the dtype they were saved in: torch's loader casts them to that of their parameters."""
    kept: dict[Tensor, dict[str, Tensor]] = {}
    for group, loaded in zip(groups, saved["param_groups"], strict=True):
        for p, key in zip(group["params"], loaded["params"], strict=True):
            for name in ("momentum_buffer", "singular_vectors"):
                x = saved["state"].get(key, {}).get(name)
                if isinstance(x, Tensor) and x.dtype != p.dtype and x.is_floating_point():
                    kept.setdefault(p, {})[name] = x.to(device=p.device)
    return kept
