"""Classes of PyTorch's tensors on which operations fail or give wrong results."""

from __future__ import annotations

import torch

from matsign.backends.constants import constant_when_compiled

_UNSUPPORTED = {
    "DTensor": "is a DTensor, spread over devices, which is not supported; pass its full_tensor() if that fits in memory",
    "ShardedTensor": "is a ShardedTensor, spread over devices, which is not supported; gather it first",
    "MaskedTensor": "is a MaskedTensor, which is not supported; pass its to_tensor(value)",
}
_reasons: dict[type, str | None] = {torch.Tensor: None, torch.nn.Parameter: None}


def why_unsupported(x: torch.Tensor) -> str | None:
    """Why a tensor is not supported; None if it is."""
    return _reason(type(x))


@constant_when_compiled
def _reason(cls: type) -> str | None:
    if cls not in _reasons:
        _reasons[cls] = next(
            (_UNSUPPORTED[base.__name__] for base in cls.__mro__ if base.__name__ in _UNSUPPORTED), None
        )
    return _reasons[cls]
