"""msign in a few steps of float32 beside Muon's five Newton-Schulz steps, and with a tolerance beside the SVD.

    python benchmarks/msign.py [OUT.json]

Both sides of a ratio are the best of runs taken in turn. Each row also says where the smallest and largest singular values
ended. On a GPU, if there is one, in float32 and bfloat16.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from muon import newton_schulz

import matsign

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU = DEVICE.type == "cuda"
SHAPES = [(1024, 1024), (256, 1024), (1024, 4096), (64, 128, 512)] + [(4096, 4096), (64, 1024, 4096)] * GPU
Tensor = torch.Tensor
Function = Callable[[Tensor], Tensor]


def five_steps(g: Tensor) -> Tensor:
    """Newton-Schulz on a matrix, or on a stack as it is written for one."""
    if g.ndim == 2:
        return newton_schulz(g)
    x = g.mT if g.shape[-2] > g.shape[-1] else g
    x = x / torch.linalg.vector_norm(x, dim=(-1, -2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        r = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(r, r, r, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if g.shape[-2] > g.shape[-1] else x


def spectrum(shape: tuple[int, ...], kind: str) -> Tensor:
    g = torch.randn(*shape)
    if kind == "Gaussian":
        return g.to(DEVICE)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    return ((u * torch.logspace(0, -3, min(shape[-2:]))) @ vh).to(DEVICE)


def seconds(f: Function, g: Tensor) -> float:
    start = time.perf_counter()
    f(g)
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(f: Function, other: Function, g: Tensor, rounds: int) -> tuple[float, float]:
    for each in (f, other):
        seconds(each, g)
    times = [(seconds(f, g), seconds(other, g)) for _ in range(rounds)]
    return min(t for t, _ in times), min(t for _, t in times)


def row(name: str, f: Function, peer: str, other: Function, g: Tensor, kind: str, rounds: int = 10) -> dict[str, Any]:
    ours, theirs = in_turn(f, other, g, rounds)
    ends = [torch.linalg.svdvals(h(g).double()) for h in (f, other)]
    (low, high), (peer_low, peer_high) = ((float(s.min()), float(s.max())) for s in ends)
    shape = "×".join(map(str, g.shape))
    print(
        f"{name:28} {shape:12} {str(g.dtype)[6:]:9} {kind:8} {ours * 1e3:8.2f} ms, {low:.6f} to {high:.6f};"
        f" {peer} takes {theirs / ours:5.2f} times that, {peer_low:.6f} to {peer_high:.6f}",
        flush=True,
    )
    return {"what": name, "shape": list(g.shape), "dtype": str(g.dtype)[6:], "spectrum": kind, "seconds": ours,
            "values": [low, high], "peer": peer, "ratio": theirs / ours, "peer values": [peer_low, peer_high]}  # fmt: skip


def svd_sign(g: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    return u @ vh


def main() -> None:
    torch.manual_seed(0)
    rows = []
    dtypes = [torch.float32, torch.bfloat16] if GPU else [torch.float32]
    for shape in SHAPES:
        for kind in ("Gaussian", "log 1e-3"):
            for dtype in dtypes:
                g = spectrum(shape, kind).to(dtype)
                rows.append(row("steps=4", lambda g: matsign.msign(g, steps=4), "Newton-Schulz", five_steps, g, kind))
    for tol in (0.1, 1e-2, 1e-6):
        for kind in ("Gaussian", "log 1e-3"):
            g = spectrum((4096, 4096) if GPU else (512, 512), kind)
            rows.append(row(f"tol={tol:g}", lambda g, t=tol: matsign.msign(g, tol=t), "the SVD", svd_sign, g, kind))
    if len(sys.argv) > 1:
        machine = {"device": str(DEVICE), "threads": torch.get_num_threads(), "torch": torch.__version__}
        Path(sys.argv[1]).write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
