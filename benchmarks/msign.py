"""msign in a few steps of float32 beside Muon's five Newton-Schulz steps, and with a tolerance beside the SVD.

    python benchmarks/msign.py [OUT.json]

Both sides of a ratio are the best of runs taken in turn, in the same dtype: float32, and bfloat16 where the device has units for
it. Each row also says where the smallest and largest singular values ended, and what part of the rate of one product of that
dtype and 4096 (on a CPU 2048) rows the products of msign reach. On a GPU, if there is one, compiled too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from arguments import json_file, parser
from muon import newton_schulz
from torch.utils.flop_counter import FlopCounterMode

import matsign
from matsign.backends import load

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU = DEVICE.type == "cuda"
SHAPES = [(1024, 1024), (256, 1024), (1024, 4096), (64, 128, 512)] + [(4096, 4096), (64, 1024, 4096)] * GPU
PEAK: dict[torch.dtype, float] = {}
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
    *batch, n, m = shape
    if kind == "Gaussian":
        return torch.randn(*shape).to(DEVICE)
    k = min(n, m)
    u, v = (torch.linalg.qr(torch.randn(*batch, side, k).to(DEVICE))[0] for side in (n, m))
    return (u * torch.logspace(0, -3, k, device=DEVICE)) @ v.mT


def ends(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest singular value of a matrix, or of the first two of a stack."""
    values = torch.linalg.svdvals((x if x.ndim == 2 else x[:2]).double())
    return float(values.min()), float(values.max())


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


def flops(f: Function, g: Tensor) -> int:
    """Those of products alone; of what is compiled, as it is not."""
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        f(g)
    return int(counter.get_total_flops())


def rate(dtype: torch.dtype, n: int) -> float:
    """The largest number of operations a second that a product of two square matrices reaches."""
    a = torch.randn(n, n, device=DEVICE).to(dtype)
    fastest = min(seconds(lambda a: a @ a, a) for _ in range(10))
    return float(2 * n**3 / fastest)


def row(name: str, f: Function, peer: str, other: Function, g: Tensor, kind: str, rounds: int = 10) -> dict[str, Any]:
    ours, theirs = in_turn(f, other, g, rounds)
    (low, high), (peer_low, peer_high) = (ends(h(g)) for h in (f, other))
    shape, part = "×".join(map(str, g.shape)), flops(f, g) / ours / PEAK[g.dtype]
    print(
        f"{name:18} {shape:12} {str(g.dtype)[6:]:9} {kind:8} {ours * 1e3:8.2f} ms, {low:.6f} to {high:.6f}, {part:4.0%} of peak;"
        f" {peer} takes {theirs / ours:5.2f} times that, {peer_low:.6f} to {peer_high:.6f}",
        flush=True,
    )
    return {"what": name, "shape": list(g.shape), "dtype": str(g.dtype)[6:], "spectrum": kind, "seconds": ours, "of peak": part,
            "values": [low, high], "peer": peer, "ratio": theirs / ours, "peer values": [peer_low, peer_high]}  # fmt: skip


def svd_sign(g: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    return u @ vh


def main() -> None:
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    chosen = options.parse_args()
    torch.manual_seed(0)
    rows = []
    dtypes = [torch.float32] + [torch.bfloat16] * (
        load("torch").fast_half_dtype(torch.ones(1, device=DEVICE)) is not None
    )
    PEAK.update({dtype: rate(dtype, 4096 if GPU else 2048) for dtype in dtypes})
    for shape in SHAPES:
        for kind in ("Gaussian", "log 1e-3"):
            for dtype in dtypes:
                g = spectrum(shape, kind).to(dtype)
                for count in (3, 4):
                    f = partial(matsign.msign, steps=count)
                    rows.append(row(f"steps={count}", f, "Newton-Schulz", five_steps, g, kind))
                    if GPU:
                        whole = torch.compile(lambda g, f=f: f(g), fullgraph=True)
                        rows.append(row(f"steps={count}, compiled", whole, "Newton-Schulz", five_steps, g, kind))
    rounds = 3 if GPU else 10  # the SVD takes seconds there
    for tol in (0.1, 1e-2, 1e-6):
        for kind in ("Gaussian", "log 1e-3"):
            g = spectrum((4096, 4096) if GPU else (512, 512), kind)
            rows.append(row(f"tol={tol:g}", partial(matsign.msign, tol=tol), "the SVD", svd_sign, g, kind, rounds))
    if chosen.out:
        machine = {"device": torch.cuda.get_device_name() if GPU else "cpu", "threads": torch.get_num_threads(),
                   "torch": torch.__version__, "rates": {str(k)[6:]: v for k, v in PEAK.items()}}  # fmt: skip
        chosen.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
