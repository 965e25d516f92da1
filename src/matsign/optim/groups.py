"""The options of a parameter group of `Muon`: defaults, meaning and checks."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch  # noqa: TID251

from matsign.backends import torch as torch_backend
from matsign.core.options import real_number, short_repr
from matsign.core.validation import HALVES, KINDS
from matsign.optim.assignment_table import ALGORITHMS
from matsign.optim.batching import (
    QUINTIC,
    QUINTIC_STEPS,
    Layout,
    MsignConfig,
    as_blocks,
    check_adjustment,
    check_layout,
    check_precision,
    msign_config,
    orthogonalise,
    repeat_step,
)
from matsign.optim.manifold_options import check_manifold
from matsign.optim.sharding import is_sharded, unsupported_sharding

Tensor = torch.Tensor
Group = dict[str, Any]

WAYS = ("ns_coefficients", "ns_steps", "schedule", "steps", "tol")
# Options of AdamW that Muon does not have, or has with another meaning.
ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8}
# Options of ``torch.optim.AdamW`` that change the algorithm, with the only values that are supported.
_FIXED = {"differentiable": False, "decoupled_weight_decay": True}
_OPTIONS = (
    *("lr", "weight_decay", "momentum", "nesterov", *WAYS, "eps", "adjust_lr_fn", "precision", "momentum_dtype"),
    *("split", "split_inputs", "batch_axes", "outputs_last", "capturable", "maximize", "algorithm", "use_muon"),
    *("manifold", "radius", "warm"),
    *("betas", "amsgrad", "foreach", "fused", *_FIXED),
)
# What schedulers of PyTorch store in a group and a resumed run may give again; some resemble an option.
_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum")


def way(
    ns_coefficients: Sequence[float] | None,
    ns_steps: int | None,
    schedule: Any,
    steps: int | None,
    tol: float | None,
) -> Group:
    """The options of a group that say how msign is computed, with those that torch needs to load them."""
    chosen = msign_config(ns_coefficients, ns_steps, schedule, steps, tol)
    newton_schulz = ns_coefficients is not None or ns_steps is not None
    return {
        "ns_coefficients": tuple(QUINTIC if ns_coefficients is None else ns_coefficients),
        "ns_steps": QUINTIC_STEPS if ns_steps is None else ns_steps,
        **{name: None if newton_schulz else getattr(chosen, name) for name in ("schedule", "steps", "tol")},
    }


def choice_of(group: Group) -> MsignConfig:
    """How msign is computed for a group: by torch's options if none of ours is given."""
    ours = MsignConfig(*(group[name] for name in MsignConfig._fields))
    if ours == MsignConfig(precision=ours.precision):
        return ours._replace(schedule=repeat_step(group["ns_coefficients"], group["ns_steps"]))
    return ours


def layout_of(group: Group) -> Layout:
    return Layout(
        as_blocks(group["split"]), group["batch_axes"], group["outputs_last"], as_blocks(group["split_inputs"])
    )


def rate_on(lr: float | Tensor, device: torch.device) -> float | Tensor:
    """The learning rate for parameters on a device: a number, or a tensor of no axes there, which is not read.

    A tensor on the CPU becomes a number for other devices.
    """
    if not isinstance(lr, Tensor):
        return float(lr)
    if lr.is_cpu and device.type != "cpu" and not torch_backend.without_values(lr):
        return float(lr)
    return lr.reshape(()).to(device, non_blocking=True)


def momentum_dtype_of(group: Group) -> torch.dtype | None:
    """The dtype that momenta of a group are kept in; None if it is that of the gradients."""
    name = group["momentum_dtype"]
    return getattr(torch, name) if isinstance(name, str) else name


def normalise_group(group: Group) -> Group:
    """A group with our names of options: Keller Jordan's ``use_muon`` becomes ``algorithm``, dtypes become their names."""
    group = dict(group)
    if isinstance(group.get("momentum_dtype"), torch.dtype):
        group["momentum_dtype"] = str(group["momentum_dtype"]).removeprefix("torch.")
    if "use_muon" in group:
        group["algorithm"] = "muon" if group.pop("use_muon") else "adamw"
    return group


def check_names(group: Mapping[str, Any], where: str) -> None:
    """A ValueError for a key that is nearly the name of an option: misspelt, it would have no effect.

    Other unknown keys are allowed, as in every optimiser of PyTorch: training loops store their own in a group.
    """
    for key in group:
        if key not in (*_OPTIONS, *_OF_SCHEDULERS, "params", "param_names"):
            close = difflib.get_close_matches(str(key), _OPTIONS, 1, cutoff=0.8)
            if close:
                raise ValueError(f"{where} has {short_repr(key)}, which is no option; did you mean {close[0]}?")


def check(group: Group) -> None:
    """A ValueError for an option out of range, and for one that would have to be ignored."""
    check_rate(group["lr"])
    for name in ("weight_decay", "momentum", "eps"):
        if not 0 <= real_number(group[name]) < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, got {short_repr(group[name])}")
    if group["algorithm"] not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {short_repr(group['algorithm'])}")
    check_adjustment(group["adjust_lr_fn"])
    check_precision(group["precision"])
    check_layout(layout_of(group))
    if group["momentum_dtype"] not in (None, *KINDS, *HALVES):
        raise ValueError(
            f"momentum_dtype must be one of {', '.join((*KINDS, *HALVES))}, got {short_repr(group['momentum_dtype'])}"
        )
    _check_flags(group)
    if group["algorithm"] == "adamw":
        _check_adamw(group)
    else:
        _check_not_of_adamw(group)
        check_manifold(group)
        _check_warm(group)


def _check_flags(group: Group) -> None:
    for name in ("nesterov", "maximize", "amsgrad", "capturable", "outputs_last", "warm"):
        if not _is_flag(group.get(name, False)):
            raise ValueError(f"{name} must be True or False, got {short_repr(group[name])}")
    for name in ("foreach", "fused"):
        if not (group.get(name) is None or _is_flag(group[name])):
            raise ValueError(f"{name} must be None, True or False, got {short_repr(group[name])}")
    for name, fixed in _FIXED.items():
        if group.get(name, fixed) != fixed:
            raise ValueError(f"{name}={short_repr(group[name])} is not supported; leave it out or give {name}={fixed}")


def is_warm(group: Group) -> bool:
    return bool(group["algorithm"] == "muon" and group.get("warm"))


def _check_warm(group: Group) -> None:
    """A ValueError for options that do not go with starts from an earlier step."""
    if not group.get("warm"):
        return
    if group["manifold"]:
        raise ValueError("warm=True has no meaning on a manifold; leave it out, or make another group without manifold")
    if group["tol"] is None or group["tol"] < 1e-3:
        raise ValueError(
            f"warm=True needs tol of at least 1e-3, the accuracy of all steps, got {short_repr(group['tol'])}"
        )
    if group.get("capturable"):
        raise ValueError("warm=True reads values in each step, and cannot be combined with capturable=True")


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, int)) and value in (True, False)


def check_rate(lr: Any) -> None:
    """A ValueError for an invalid learning rate; a tensor without a value is not checked."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"lr must be one number, got a tensor of shape {tuple(lr.shape)}")
        if lr.is_complex():
            raise ValueError(f"lr must be at least 0, got a tensor of dtype {lr.dtype}")
        if torch_backend.without_values(lr):
            return
        lr = float(lr.detach())
    if not 0 <= real_number(lr) < math.inf:
        raise ValueError(f"lr must be at least 0 and finite, got {short_repr(lr)}")


def _check_adamw(group: Group) -> None:
    """A ValueError for options that ``torch.optim.AdamW`` does not take, or not together."""
    _check_betas(group["betas"])
    if group.get("foreach") and group.get("fused"):
        raise ValueError("foreach=True and fused=True cannot be given together: each is another implementation")
    if group.get("foreach") and isinstance(group["lr"], Tensor) and not group.get("capturable"):
        raise ValueError(
            "foreach=True with a tensor as lr needs capturable=True; leave foreach out, or give lr a number"
        )


def _check_not_of_adamw(group: Group) -> None:
    """A ValueError for options of AdamW that a group under Muon would ignore. Its steps are always those of foreach=True."""
    for name, ignored in (("amsgrad", True), ("fused", True), ("foreach", False)):
        if group.get(name) is not None and group[name] == ignored:
            raise ValueError(
                f"{name}={ignored} is of AdamW and has no meaning for Muon; give it to a group with "
                'algorithm="adamw", or leave it out'
            )


def _check_betas(betas: Any) -> None:
    fits = isinstance(betas, (tuple, list)) and len(betas) == 2
    if not (fits and all(0 <= real_number(beta) < 1 for beta in betas)):
        raise ValueError(f"betas must be two numbers in [0, 1), got {short_repr(betas)}")


def parameter_name(group: Group, index: int, k: int) -> str:
    """The k-th parameter of the group of this index, for an error message: by its name if it has one."""
    names = group.get("param_names")
    return f"parameter {names[k]!r}" if names else f"parameter {k} of group {index}"


def check_parameters(group: Group, index: int) -> None:
    """An error for the first parameter that Muon cannot take: not a matrix, not a plain tensor, too low a precision for `tol`."""
    if group["algorithm"] != "muon":
        return
    how, layout, dtype = choice_of(group), layout_of(group), momentum_dtype_of(group)
    for k, p in enumerate(group["params"]):
        reason = unfit_tensor(p) or unfit_sharded(group, p)
        if reason:
            raise TypeError(f"Muon: {parameter_name(group, index, k)} {reason}")
        layout.shapes(p.shape, parameter_name(group, index, k))
        if dtype is not None and p.is_complex() != dtype.is_complex:
            raise ValueError(
                f"{parameter_name(group, index, k)} has dtype {p.dtype}, which has no momentum in momentum_dtype={dtype}"
            )
    # Raises for wrong options of a loaded state, and for a tolerance that these dtypes cannot hold.
    for dtype in {torch.float64} | {p.dtype for p in group["params"]}:
        orthogonalise(torch.ones((1, 1, 1), dtype=dtype), how)


def unfit_sharded(group: Group, p: Tensor) -> str | None:
    """Why a group cannot take a sharded parameter; None if it can, or if the parameter is whole."""
    for option, name in (("manifold", "a manifold"), ("warm", "warm=True")):
        if group.get(option) and is_sharded(p):
            return f"is sharded, and {name} is for parameters that are whole on their device"
    return None


_DTYPES = {getattr(torch, name) for name in (*KINDS, *HALVES)}


def unfit_tensor(x: Tensor) -> str | None:
    """Why Muon cannot take a tensor; None if it can."""
    reason = unsupported_sharding(x) if is_sharded(x) else torch_backend.why_unsupported(x)
    if reason is None and x.dtype not in _DTYPES:
        return f"has dtype {x.dtype}; expected {', '.join((*KINDS, *HALVES))}"
    return reason
