"""Products in the full precision of their dtype, regardless of the process's settings for faster ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

Array = torch.Tensor


def full_precision_of(x: Array) -> Any:
    """A context manager without autocast and reduced float32 products, with which no iteration converges."""
    # The precision of products in compiled code is that of its caller.
    if torch.compiler.is_compiling():
        return _no_autocast(x)
    return _UNCHANGED if _is_full(x) else _set_full(x)


_UNCHANGED = contextlib.nullcontext()


def _autocast(kind: str) -> bool:
    return bool(torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind))


def _no_autocast(x: Array) -> Any:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if _autocast(kind) else contextlib.nullcontext()


def _is_full(x: Array) -> bool:
    """True on a CPU if no setting has to change, the usual case."""
    if x.device.type != "cpu" or _autocast("cpu"):
        return False
    owner: Any = getattr(torch.backends.mkldnn, "matmul", None)
    return getattr(owner, "fp32_precision", None) in ("ieee", "none")


@contextlib.contextmanager
def _set_full(x: Array) -> Iterator[None]:
    with _no_autocast(x), _float32_products(x.is_cuda):
        yield


@contextlib.contextmanager
def _float32_products(cuda: bool) -> Iterator[None]:
    """Products of float32 computed in float32, and sums of float16 products in float32."""
    owner: Any = getattr(torch.backends.cuda if cuda else torch.backends.mkldnn, "matmul", None)
    if not hasattr(owner, "fp32_precision"):  # PyTorch before 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    before, half_sums = owner.fp32_precision, cuda and owner.allow_fp16_accumulation
    if before not in ("ieee", "none"):
        owner.fp32_precision = "ieee"
    if half_sums:
        owner.allow_fp16_accumulation = False
    try:
        yield
    finally:
        if before not in ("ieee", "none"):
            # The setting may have been inherited from the global one.
            owner.fp32_precision = "none"
            if owner.fp32_precision != before:
                owner.fp32_precision = before
        if half_sums:
            owner.allow_fp16_accumulation = True
