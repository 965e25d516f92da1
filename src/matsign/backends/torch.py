"""PyTorch, on any of its devices."""

from __future__ import annotations

import cmath
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import array_api_compat.torch
import numpy as np
import torch

from matsign._typing import Arrays
from matsign.backends import control_flow, numpy, stacking, torch_classes, torch_precision

Array = torch.Tensor
name = "torch"
xp = array_api_compat.torch


def asarray(x: Any, like: Any = None) -> Array:
    if isinstance(x, torch.Tensor):
        if x.layout != torch.strided:
            raise TypeError(f"its layout is {x.layout}; call .to_dense()")
        return x
    return torch.as_tensor(np.asarray(x), device=None if like is None else like.device)


why_unsupported = torch_classes.why_unsupported

# A table, because the name of a dtype is slow to compute.
_NAMES = {
    getattr(torch, name): name for name in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
}


def layout(x: Any) -> Any:
    # Not under torch.compile, where shapes may be symbols.
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or torch.compiler.is_compiling():
        return None
    if x.dtype not in _NAMES or x.layout != torch.strided or x.ndim < 2:
        return None
    return torch.Tensor, x.dtype, x.shape, x.device


def astype(x: Array, kind: str) -> Array:
    return x if _NAMES.get(x.dtype) == kind else x.to(getattr(torch, kind))


def dtype_name(x: Array) -> str:
    return _NAMES.get(x.dtype) or str(x.dtype).removeprefix("torch.")


def default_float() -> str:
    return str(torch.get_default_dtype()).removeprefix("torch.")


def resolve_conj(x: Array) -> Array:
    return x.resolve_conj()


def eye(n: int, like: Array) -> Array:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def ones(like: Array) -> Array:
    return torch.ones(len(like), dtype=like.real.dtype, device=like.device)


def int_zeros(like: Array) -> Array:
    return torch.zeros(len(like), dtype=torch.int32, device=like.device)


def is_complex(x: Array) -> bool:
    return x.is_complex()


def inner(x: Array, y: Array) -> Array:
    return torch.linalg.vecdot(x, y).real


def norm(x: Array) -> Array:
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))


def trace(x: Array) -> Array:
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)


def eps(x: Array) -> float:
    return torch.finfo(x.dtype).eps


def common_dtype_name(*xs: Array) -> str:
    dtype = xs[0].dtype
    for x in xs[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return str(dtype).removeprefix("torch.")


def device_name(x: Array) -> str:
    return str(x.device)


def follows_others(x: Array) -> bool:
    return False


def on_cpu(x: Array) -> bool:
    return x.device.type == "cpu"


# Up to this size cuSOLVER has one kernel for all members of a batch, and reserves up to 0.4 MB for each.
_BATCHED_SIZE, _BATCHED_MEMBERS = 32, 4096


def fast_eigh(x: Array) -> bool:
    """Measured on an H200: an iteration takes five milliseconds or more because of its many kernels."""
    n = x.shape[-1]
    return on_cpu(x) or (not is_traced(x) and (n <= _BATCHED_SIZE or len(x) <= 4 or n >= 512))


def fast_svd(x: Array) -> bool:
    short = min(x.shape[-2:])
    return on_cpu(x) or (not is_traced(x) and (short <= _BATCHED_SIZE or (len(x) == 1 and short <= 128)))


# Whether this processor multiplies bfloat16 in hardware, if PyTorch can tell.
_HAS_BFLOAT16_UNITS = hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def fast_half_dtype(x: Array) -> str | None:
    # float16 has more digits than bfloat16, and scaled matrices do not need the range of bfloat16.
    if x.is_cuda:
        return "float16"
    return "bfloat16" if on_cpu(x) and _HAS_BFLOAT16_UNITS else None


def capturing() -> bool:
    """Whether a CUDA graph is captured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


_unread: ContextVar[bool] = ContextVar("unread", default=False)


@contextlib.contextmanager
def values_unread(unread: bool) -> Iterator[None]:
    """Inside, no value is read on the host if `unread`, as while a CUDA graph is captured: both take the same steps."""
    token = _unread.set(unread)
    try:
        yield
    finally:
        _unread.reset(token)


def _no_values() -> bool:
    """Whether values cannot be read, or must not be."""
    return torch.compiler.is_compiling() or capturing() or _unread.get()


def without_values(x: Array) -> bool:
    """Whether a tensor has only a shape and a dtype: on the device "meta", or a FakeTensor."""
    return x.is_meta or type(x).__name__ == "FakeTensor"


def is_traced(x: Array) -> bool:
    return _no_values() or without_values(x)


def dynamic_shapes(x: Array) -> bool:
    return not is_traced(x)


def products_only(x: Array) -> bool:
    return False


def unrolls_loops(x: Array) -> bool:
    return is_traced(x)


def workers(x: Array) -> int:
    return int(on_cpu(x) and not without_values(x))


def full_precision(x: Array) -> Any:
    return torch_precision.full_precision_of(x)


def _check_lapack(value: Array, info: Array) -> Array:
    if is_traced(info):
        return torch.where((info != 0)[:, None, None], torch.nan, value)
    if info.any():
        value[info != 0] = torch.nan
    return value


def addmm(beta: float, x: Array, alpha: float, a: Array, b: Array) -> Array:
    return torch.baddbmm(x, a, b, beta=beta, alpha=alpha)


# For each dtype, the size from which one triangle by Triton is faster than the whole product, as measured by benchmarks/gpu.py.
_TRITON_FROM_SIZE = {torch.float16: 8192, torch.bfloat16: 8192}


def hermitian_product(a: Array, b: Array, shift: float = 0.0) -> Array:
    if a.is_cuda and a.shape[-2] >= _TRITON_FROM_SIZE.get(a.dtype, sys.maxsize):
        from matsign.backends import triton_kernels

        return triton_kernels.symmetric_product(a, b.mT, shift)
    product = a @ b
    if shift:
        product.diagonal(dim1=-2, dim2=-1).add_(shift)
    return product


def add_diagonal(x: Array, alpha: Array) -> Array:
    x.diagonal(dim1=-2, dim2=-1).add_(alpha[:, None])
    return x


def known_finite(x: Array) -> bool:
    # One pass. The sum of finite numbers may overflow: then the answer is False and the caller tests each entry.
    return not is_traced(x) and cmath.isfinite(x.sum().item())


def any_true(x: Array) -> bool:
    return bool(x.any())


def all_true(x: Array) -> bool:
    return bool(x.all())


def inv(a: Array) -> Array:
    return _check_lapack(*torch.linalg.inv_ex(a))


def inv_near(a: Array, guess: Array) -> Array:
    return inv(a)


def svd(a: Array) -> tuple[Array, Array, Array]:
    u, values, vh = _decomposition(functools.partial(torch.linalg.svd, full_matrices=False), numpy.svd, a)
    return u, values, vh


def eigh(a: Array) -> tuple[Array, Array]:
    """On a GPU in double precision: in single precision errors were 4e-5 for a matrix of 96 rows (H200)."""
    wide = a if on_cpu(a) else a.to(torch.complex128 if a.is_complex() else torch.float64)
    values, vectors = _decomposition(torch.linalg.eigh, numpy.eigh, wide)
    return values.to(a.real.dtype), vectors.to(a.dtype)


def eig(a: Array) -> tuple[Array, Array]:
    """Of a contiguous copy: PyTorch 2.11 on CUDA returns the eigenvectors of Aᵀ if the entries of A lie by columns (H100)."""
    values, vectors = _with_numpy_fallback(torch.linalg.eig, numpy.eig, a.contiguous())
    return values, vectors


def _decomposition(usual: Callable[..., Any], other: Callable[..., Any], a: Array) -> Any:
    """Of all members; of a large batch on a GPU in chunks, because it would reserve hundreds of gigabytes."""
    if on_cpu(a) or len(a) <= _BATCHED_MEMBERS or min(a.shape[-2:]) > _BATCHED_SIZE:
        return _with_numpy_fallback(usual, other, a)
    chunks = [_with_numpy_fallback(usual, other, x) for x in a.split(_BATCHED_MEMBERS)]
    return [torch.cat(parts) for parts in zip(*chunks, strict=True)]


def _with_numpy_fallback(usual: Callable[..., Any], other: Callable[..., Any], a: Array) -> Any:
    """PyTorch raises an error for the whole stack if LAPACK does not converge for a member; then NumPy's backend is called."""
    try:
        return usual(a)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return [torch.as_tensor(x).to(a.device) for x in other(a.detach().cpu().resolve_conj().numpy())]


def solve(a: Array, b: Array) -> Array:
    return _check_lapack(*torch.linalg.solve_ex(a, b))


def cholesky(a: Array) -> Array:
    return _check_lapack(*torch.linalg.cholesky_ex(a))


def log_determinant(a: Array) -> Array:
    return torch.linalg.slogdet(a).logabsdet


def exponent(x: Array) -> Array:
    return torch.frexp(x).exponent


def largest(x: Array) -> Array:
    return x.abs().amax(dim=(-1, -2))


def ldexp(x: Array, e: Array) -> Array:
    # Two factors: a single one would overflow for a denormal x.
    real = x.real.dtype
    # Beyond this limit a factor is infinite and 0 becomes NaN; no ratio of two numbers is so large.
    limit = 252 if real == torch.float32 else 2044
    e = e.clamp(-limit, limit)
    half = torch.div(e, 2, rounding_mode="floor")
    # Filled on the device: a copy from the CPU cannot be captured in a CUDA graph.
    two = torch.full((), 2.0, dtype=torch.float64, device=x.device)
    return x * (two**half).to(real) * (two ** (e - half)).to(real)


exact_ldexp = ldexp


def loop(step: Callable[[Any], Any], state: Any, limit: int) -> Any:
    first = control_flow.first_leaf(state)
    if is_traced(first):
        return control_flow.unrolled_loop(step, state, limit, torch.where)
    all_members, holder = torch.arange(len(first), device=first.device), [state]
    del first, state
    return control_flow.loop(step, holder, limit, all_members)


def masked_cond(mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
    if is_traced(mask):
        return control_flow.both(mask, yes(*arrays), no(*arrays), torch.where)
    return control_flow.masked_cond(mask, yes, no, *arrays)


rare_cond = masked_cond


fold_rows = control_flow.fold_rows
shared_function = control_flow.shared_function
sum_over_rows = control_flow.sum_over_rows


def scan(f: Callable[..., Any], state: Any, rows: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    return control_flow.scan(xp, f, state, rows, reverse)


def masked_select(mask: Array, yes: Any, no: Any) -> Any:
    return masked_cond(mask, control_flow.first, control_flow.second, yes, no)


def as_stacks(arrays: Sequence[Any], batch: tuple[int, ...], own: Sequence[int]) -> tuple[Any, ...]:
    return stacking.as_stacks(xp, arrays, batch, own)


def tangent(bound: Any, value: Arrays, arrays: Arrays, directions: Arrays) -> Arrays:
    return bound.tangent(sys.modules[__name__], value, arrays, directions)


def bind(bound: Any, *arrays: Array) -> tuple[Array, ...]:
    from matsign.backends import torch_autodiff

    return torch_autodiff.bind(bound, *arrays)


def by_numpy(bound: Any, *arrays: Array) -> bool:
    return False  # a tensor may require a gradient


def from_numpy(x: Any, like: Array) -> Array:
    return torch.as_tensor(x, device=like.device)


def stop_gradient(x: Array) -> Array:
    return x.detach()


def host_callback(f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
    if any(without_values(x) for x in arrays):
        return control_flow.tree_map(torch.empty_like, like)
    with np.errstate(all="ignore"):
        result = f(*(x.detach().cpu().resolve_conj().numpy() for x in arrays))
    return control_flow.tree_map(lambda r, x: torch.as_tensor(r, dtype=x.dtype).to(x.device), result, like)
