"""Every operation of PyTorch that a call does on a device, beside the same on the CPU: which kernel is wrong, for which strides.

    PYTHONPATH=src:tests python benchmarks/on_gpu/kernels.py [lqe dlqe ...] [--cpu]

The calls are the cases of tests/derivatives/test_equations.py, with their first derivatives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_UNDEFINED = ("empty", "qr", "svd", "eigh", "rand")


def tensors(tree: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


class BesideCpu(TorchDispatchMode):
    """Prints each operation whose result differs from that on the CPU, or from that for contiguous arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, f.name()
        where = {x.device.type for x in tensors((args, kwargs))}
        if len(where) != 1 or any(part in name for part in _UNDEFINED):
            return f(*args, **kwargs)
        here = tree_map(_here, (args, {**kwargs, "device": "cpu"} if "device" in kwargs else kwargs))
        rows = tree_map(_rows, (args, kwargs)) if not f._schema.is_mutable else None
        given = f(*args, **kwargs)
        self.count += 1
        if name == "aten::linalg_eig":
            self.note(name, _residual(args[0], *given), args, lambda: _residual(args[0], *f(_rows(args[0]))))
            return given
        expected = f(*here[0], **here[1])
        found = (given, expected) if rows else (tensors(args)[0], tensors(here)[0])
        self.note(name, _gap(*found), (args, kwargs), lambda: _gap(f(*rows[0], **rows[1]), expected) if rows else 0.0)
        return given

    def note(self, name: str, gap: float, arguments: Any, again: Callable[[], float]) -> None:
        if not gap < 1e-9:
            shapes = ", ".join(f"{tuple(x.shape)} {x.stride()} {x.dtype}" for x in tensors(arguments))
            self.wrong.append(f"{name}: {gap:.2g}, contiguous {again():.2g}; {shapes}")


def _rows(x: Any) -> Any:
    return x.contiguous() if isinstance(x, torch.Tensor) else x


def _residual(a: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> float:
    """That of eigenvectors, whose signs and order are free."""
    return float((a.to(vectors.dtype) @ vectors - vectors * values[..., None, :]).norm() / a.norm())


def _here(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    if 0 in x.stride():
        return x.cpu()
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x)


def _gap(given: Any, expected: Any) -> float:
    """The largest relative distance, without the entries that are not finite in either."""
    gaps = [0.0]
    for x, y in zip(tensors(given), tensors(expected), strict=True):
        x, y = (z.detach().cpu().to(torch.complex128).resolve_conj().numpy() for z in (x, y))
        same = (x == y) | (np.isnan(x) & np.isnan(y)) | ~np.isfinite(y)
        with np.errstate(invalid="ignore"):
            gap = np.linalg.norm(np.where(same, 0, x - y))
        gaps.append(float(gap / max(np.linalg.norm(np.where(np.isfinite(y), y, 0)), 1e-300)))
    return max(gaps) if not any(map(np.isnan, gaps)) else float("inf")


def first_derivatives(case: Any, put: Callable[[Any], torch.Tensor]) -> list[np.ndarray]:
    """As in tests/backends/test_gpu.py."""
    import matsign
    from keyword_arrays import by_position

    random = np.random.default_rng(2025)
    arguments = case.make(random, "float64")
    options = {k: v for k, v in case.options.items() if v is not None}
    leaves = [None if x is None else put(x.copy()).requires_grad_() for x in arguments]
    results = [x for x in by_position(getattr(matsign, case.name))(*leaves, **options) if x is not None]
    total = sum((x * put(random.standard_normal(x.shape))).sum().real for x in results)
    inputs = [x for x in leaves if x is not None]
    return [x.detach().cpu().numpy() for x in torch.autograd.grad(total, inputs, create_graph=True)]


def main() -> None:
    from derivatives import test_equations

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", default=["lqe", "dlqe"], help="functions with several results")
    options.add_argument("--cpu", action="store_true", help="to see that the script works")
    chosen = options.parse_args()

    def put(x: Any) -> torch.Tensor:
        return torch.as_tensor(x, device="cpu" if chosen.cpu else "cuda")

    for case in test_equations.CASES:
        if case.name not in chosen.names:
            continue
        expected = first_derivatives(case, torch.as_tensor)
        gaps = [
            np.linalg.norm(x - y) / np.linalg.norm(y)
            for x, y in zip(first_derivatives(case, put), expected, strict=True)
        ]
        print(case, "relative errors of the gradients:", [float(f"{x:.2g}") for x in gaps])
        with BesideCpu() as beside:
            first_derivatives(case, put)
        print(f"  {beside.count} operations, {len(beside.wrong)} differ", *beside.wrong[:12], sep="\n    ")


if __name__ == "__main__":
    main()
