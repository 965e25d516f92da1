"""What a gradient costs on the CPU: forward and backward beside forward alone, and beside the ways people use today.

    python benchmarks/derivatives.py [OUT.json] [--size N] [--quick]

Times are the best of several, in one run. Memory is the peak of the process during one forward and backward pass above what it
held before, in numbers of the dtype over n², less the inputs, their gradients and the result.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import torch
from arguments import json_file, parser

import matsign

jax.config.update("jax_enable_x64", True)
torch.manual_seed(0)
Rows = list[dict[str, Any]]
Tensor = torch.Tensor


def best_time(f: Callable[[], Any], budget: float) -> float:
    """The least seconds of a call, of those that fit the budget."""
    f()
    best, spent = math.inf, 0.0
    while spent < budget:
        start = time.perf_counter()
        f()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


def gaussian(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def newton_sign(m: Tensor) -> Tensor:
    """mcsgn by Newton's iteration as one writes it by hand, every step on the tape."""
    for _ in range(40):
        inverse = torch.linalg.inv(m)
        mu = (torch.linalg.norm(inverse) / torch.linalg.norm(m)).sqrt().detach()
        new = (mu * m + inverse / mu) / 2
        gap = torch.linalg.norm(new - m) / torch.linalg.norm(new)
        m = new
        if gap < 1e-13:
            break
    return m


def newton_schulz(m: Tensor) -> Tensor:
    """msign by Newton-Schulz to working precision, on the tape."""
    x = m / torch.linalg.matrix_norm(m, 2).detach()
    for _ in range(100):
        new = 1.5 * x - 0.5 * x @ (x.mT @ x)
        gap = torch.linalg.norm(new - x)
        x = new
        if gap < 1e-13 * x.shape[-1]:
            break
    return x


def svd_sign(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


def eigh_root(a: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return (vectors * values.sqrt()) @ vectors.mT


def problems(n: int) -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], dict[str, Callable[..., Tensor]]]]:
    g, h, one = gaussian(n, n), gaussian(n, n), torch.eye(n, dtype=torch.float64)
    right = [x / n**0.5 + 2.5 * one for x in (g, h)]
    plant = (g, h[:, : n // 2].contiguous(), one, one[: n // 2, : n // 2].contiguous())
    return {
        "mcsgn": (matsign.mcsgn, (g,), {"unrolled Newton": newton_sign}),
        "msign": (matsign.msign, (g,), {"torch.linalg.svd": svd_sign, "unrolled Newton-Schulz": newton_schulz}),
        "msign, n x n/2": (matsign.msign, (g[:, : n // 2].contiguous(),), {"torch.linalg.svd": svd_sign}),
        "sqrtm, definite": (matsign.sqrtm, (g @ g.mT / n + one,), {"torch.linalg.eigh": eigh_root}),
        "sqrtm, general": (matsign.sqrtm, (right[0],), {}),
        "solve_sylvester": (matsign.solve_sylvester, (*right, h), {}),
        "solve_continuous_are": (matsign.solve_continuous_are, plant, {}),
    }


def backward(f: Callable[..., Tensor], arrays: tuple[Tensor, ...]) -> None:
    inputs = [x.detach().requires_grad_() for x in arrays]
    f(*inputs).sum().backward()


def held(name: str) -> int:
    """Bytes of this process, VmRSS now or VmHWM at its peak."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) * 1024


def memory(f: Callable[..., Tensor], arrays: tuple[Tensor, ...], n: int) -> float | None:
    """Peak over n², above the inputs, their gradients and the result; None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    libc = ctypes.CDLL(None)
    libc.mallopt(
        -3, 1 << 16
    )  # M_MMAP_THRESHOLD: what is freed goes back to the system at once, and is not counted again
    backward(f, arrays)  # what is loaded and allocated once does not count
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    backward(f, arrays)
    known = 8 * (sum(x.numel() for x in arrays) + n * n)
    return (held("VmHWM") - before - known) / (8 * n * n)


def torch_rows(rows: Rows, n: int, budget: float) -> None:
    for name, (f, arrays, peers) in problems(n).items():
        forward = best_time(lambda f=f, a=arrays: f(*a), budget)
        both = best_time(lambda f=f, a=arrays: backward(f, a), budget)
        row = {"function": name, "n": n, "forward": forward, "with backward": both, "memory": memory(f, arrays, n)}
        row["peers"] = {k: best_time(lambda g=g, a=arrays: backward(g, a), budget) for k, g in peers.items()}
        rows.append(row)
        told = "; ".join(f"{k} {t / both:.1f} times that" for k, t in row["peers"].items())
        peak = "" if row["memory"] is None else f"{row['memory']:5.1f} n²"
        print(
            f"{name:22} {n:5} {forward * 1e3:9.2f} ms {both * 1e3:9.2f} ms {both / forward:5.2f}  {peak}  {told}",
            flush=True,
        )


def jax_rows(rows: Rows, n: int, budget: float) -> None:
    """Compiled gradients, beside JAX's own functions where it has them with a derivative."""
    xp = jax.numpy
    g, h, one = (xp.asarray(x.numpy()) for x in (gaussian(n, n), gaussian(n, n), torch.eye(n, dtype=torch.float64)))
    a, b = g / n**0.5 + 2.5 * one, h / n**0.5 + 2.5 * one

    def svd_sign(m: Any) -> Any:
        u, _, vh = xp.linalg.svd(m, full_matrices=False)
        return u @ vh

    def eigh_root(m: Any) -> Any:
        values, vectors = xp.linalg.eigh(m)
        return (vectors * xp.sqrt(values)) @ vectors.T

    for name, ours, theirs, arrays in (
        ("msign", matsign.msign, svd_sign, (g,)),
        ("sqrtm, definite", matsign.sqrtm, eigh_root, (g @ g.T / n + one,)),
        ("solve_sylvester", matsign.solve_sylvester, None, (a, b, h)),
    ):
        times = []
        for f in (ours, theirs):
            if f is None:
                continue
            gradient = jax.jit(jax.grad(lambda *xs, f=f: f(*xs).sum(), argnums=tuple(range(len(arrays)))))
            times.append(best_time(lambda k=gradient, xs=arrays: jax.block_until_ready(k(*xs)), budget))
        rows.append({"function": f"{name}, JAX", "n": n, "with backward": times[0], "peers": {"JAX": times[1:]}})
        print(
            f"{name + ', jax.jit':22} {n:5} {'':12} {times[0] * 1e3:9.2f} ms {'':5}  JAX's own: {times[1:]}", flush=True
        )


def maps(rows: Rows, budget: float) -> None:
    """vmap of small problems beside the batch passed directly."""
    x = gaussian(2000, 8, 8)
    for name, f in (("mcsgn", matsign.mcsgn), ("msign", matsign.msign)):
        direct, mapped = best_time(lambda f=f: f(x), budget), best_time(lambda f=f: torch.vmap(f)(x), budget)
        j = jax.numpy.asarray(x.numpy())
        both = (jax.jit(f), jax.jit(jax.vmap(f)))
        compiled = [best_time(lambda k=k, j=j: jax.block_until_ready(k(j)), budget) for k in both]
        rows.append({"function": f"{name}, vmap", "n": 8, "torch": mapped / direct, "JAX": compiled[1] / compiled[0]})
        print(
            f"vmap of {name}: torch {mapped / direct:.2f}, compiled JAX {compiled[1] / compiled[0]:.2f} of the batch's time"
        )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--size", type=int, help="this size alone (default 64, 256 and 512)")
    options.add_argument("--quick", action="store_true", help="small sizes and short runs")
    chosen = options.parse_args()
    quick = chosen.quick
    sizes = [chosen.size] if chosen.size else [64] if quick else [64, 256, 512]
    rows: Rows = []
    budget = 0.2 if quick else 1.0
    print(
        f"{'function':22} {'n':>5} {'forward':>12} {'with backward':>12} {'ratio':>5}  memory  peers, forward and backward"
    )
    for n in sizes:
        torch_rows(rows, n, budget)
        jax_rows(rows, min(n, 256), budget)
    maps(rows, budget)
    if chosen.out:
        chosen.out.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
