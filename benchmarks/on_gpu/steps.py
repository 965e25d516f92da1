"""The cases of gpu_functions.py with warm starts, with steps of optimisers (NCCL, too), and in CUDA graphs."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
import torch

import matsign
from matsign import spectral_sphere_step, stiefel_step
from matsign.optim import Muon, param_groups
from on_gpu.cases import Case, Run, distance, here

rng = np.random.default_rng(3)


def warm(run: Run, name: str, n: int, change: float) -> Case:
    """A matrix that moves by a part `change` of its norm, with the state of the one before, beside a cold call.

    A 32nd of its singular values are above the thresholds, as in benchmarks/bench.
    """
    m = torch.randn(n, n, device=run.device, dtype=torch.float64 if n <= 512 else torch.float32) / n**0.5
    if name != "warm_msign":
        u, v = (torch.linalg.qr(torch.randn_like(m))[0][:, : n // 32] for _ in range(2))
        m = 0.2 * m + (u * torch.linspace(2, 4, n // 32, device=m.device, dtype=m.dtype)) @ v.mT
    near = m + change * torch.randn_like(m) / n**0.5
    cold, start = {
        # rtol=0: for the default one of float32 a singular value may count as zero that does not in the doubles of the reference.
        "warm_msign": (functools.partial(matsign.msign, rtol=0), functools.partial(matsign.warm_msign, rtol=0)),
        "warm_mclip": (matsign.mclip, matsign.warm_mclip),
        "warm_soft_threshold": (
            lambda x: matsign.soft_threshold(x, 1.0),
            lambda x, state=None: matsign.warm_soft_threshold(x, 1.0, state=state),
        ),
    }[name]
    state = start(m).state
    expected = cold(here(near))
    allowed = 1e-9 if m.dtype == torch.float64 else 1e-2 if name == "warm_msign" else 1e-3
    peers = {"cold": lambda: cold(near), "torch.linalg.svd": lambda: torch.linalg.svd(near)}
    return Case(lambda: start(near, state=state), lambda x: distance(x[0], expected), allowed, peers)


def warm_starts(run: Run) -> None:
    for n in (16,) if run.cpu else (512, 1024):
        for change in (1e-4, 1e-2):
            for name in ("warm_msign", "warm_mclip", "warm_soft_threshold"):
                run.case(f"{name} {n} changed by {change}", warm, run, name, n, change)


def manifold_step(run: Run, name: str, count: int, n: int, m: int) -> Case:
    """The error is the relative distance of the gain from the one on the CPU in doubles."""
    w = rng.standard_normal((count, n, m)) / np.sqrt(n)
    w = np.linalg.qr(w)[0] if name == "stiefel_step" else w
    given = w, rng.standard_normal((count, n, m))
    w, g = (torch.as_tensor(x, dtype=torch.float32, device=run.device) for x in given)
    f = {"stiefel_step": stiefel_step, "spectral_sphere_step": spectral_sphere_step}[name]
    few = here(w[:2]), here(g[:2])
    best = np.sum(f(*few)[0] * few[1], axis=(-1, -2))

    def error(value: Any) -> float:
        assert float(value.gap.max()) <= 1e-3
        return float(np.abs(np.sum(here(value.step[:2]) * few[1], axis=(-1, -2)) / best - 1).max())

    return Case(lambda: f(w, g, gap=1e-3), error, 2e-3, {"msign": lambda: matsign.msign(g)}, count)


def steps(run: Run) -> None:
    for name in ("stiefel_step", "spectral_sphere_step"):
        for count, n, m in ((3, 6, 4),) if run.cpu else ((16, 256, 128), (1, 1024, 512)):
            run.case(f"{name} {count} x {n} x {m} float32", manifold_step, run, name, count, n, m)
    for manifold in ("stiefel", "spectral_sphere"):
        run.case(f"Muon, {manifold}", muon_on_a_manifold, run, manifold, 8 if run.cpu else 512)
    if "warm" in inspect.signature(Muon).parameters:
        run.case("Muon, warm", warm_muon, run, 16 if run.cpu else 1024)


def muon_on_a_manifold(run: Run, manifold: str, n: int) -> Case:
    """Two steps from Gaussian weights of two shapes; the error is the distance of the singular values from 1."""
    params = [torch.nn.Parameter(torch.randn(n, k * n, device=run.device)) for k in (1, 1, 2)]
    muon = Muon(params, lr=0.01, manifold=manifold)

    def step() -> list[torch.Tensor]:
        for p in params:
            p.grad = torch.randn_like(p)
        muon.step()
        return [p.detach() for p in params]

    step()

    def error(found: list[torch.Tensor]) -> float:
        values = [np.linalg.svd(here(p), compute_uv=False) for p in found]
        return float(max(np.abs((v if manifold == "stiefel" else v[:1]) - 1).max() for v in values))

    return Case(step, error, 1e-3, {"without a manifold": _plain_step(params)})


def _plain_step(params: list[torch.nn.Parameter]) -> Any:
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    muon = Muon(copies, lr=0.01)
    for p in copies:
        p.grad = torch.randn_like(p)
    return muon.step


def warm_muon(run: Run, n: int) -> Case:
    """A step whose gradient has moved little, beside a cold one; the error is the distance of the two updates."""
    start = torch.randn(n, n, device=run.device)
    gradients = [torch.randn(n, n, device=run.device)]
    gradients += [gradients[0] + 0.01 * torch.randn_like(start) for _ in range(2)]

    def made(**options: Any) -> tuple[torch.nn.Parameter, Muon]:
        p = torch.nn.Parameter(start.clone())
        return p, Muon([p], lr=0.1, weight_decay=0.0, tol=1e-2, precision="full", **options)

    (warm, warm_muon), (cold, cold_muon) = made(warm=True), made()
    for g in gradients:
        for p, muon in ((warm, warm_muon), (cold, cold_muon)):
            p.grad = g.clone()
            muon.step()
    value = float((warm - cold).detach().norm() / (cold - start).detach().norm())
    return Case(warm_muon.step, lambda _: value, 5e-2, {"cold": cold_muon.step})


def sharded_muon(run: Run, n: int) -> Case:
    """Parameters after three steps under FSDP2, in a process group of one, beside the same without."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not distributed.is_initialized():
        store = distributed.HashStore()
        distributed.init_process_group("gloo" if run.cpu else "nccl", store=store, rank=0, world_size=1)
    mesh = init_device_mesh(run.device, (1,))

    def made(shard: bool) -> tuple[torch.nn.Module, Muon, torch.Tensor]:
        torch.manual_seed(0)
        layers = [torch.nn.Linear(n, 2 * n), torch.nn.Tanh(), torch.nn.Linear(2 * n, n)]
        module = torch.nn.Sequential(*layers).to(run.device)
        if shard:
            for layer in (module[0], module[2], module):
                fully_shard(layer, mesh=mesh)
        return module, Muon(param_groups(module), lr=0.02), torch.randn(64, n, device=run.device)

    def train(shard: bool) -> list[torch.Tensor]:
        module, muon, x = made(shard)
        for _ in range(3):
            muon.zero_grad()
            module(x).square().mean().backward()
            muon.step()
        return [p.detach().full_tensor() if shard else p.detach() for p in module.parameters()]

    plain = tuple(train(False))
    module, muon, x = made(True)
    module(x).square().mean().backward()
    alone, muon_alone, x = made(False)
    alone(x).square().mean().backward()
    return Case(
        lambda: tuple(train(True)),
        lambda found: distance(found, plain),
        1e-4,
        {"a step, sharded": muon.step, "a step, not sharded": muon_alone.step},
    )


def nccl(run: Run) -> None:
    run.case("three steps of Muon under FSDP2, one process", sharded_muon, run, 16 if run.cpu else 1024)
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def recorded(run: Run, n: int) -> Case:
    """msign in few steps in a CUDA graph that is replayed on new numbers, beside the call outside."""

    def new() -> torch.Tensor:
        return torch.randn(4, n, n, device=run.device)

    def f(x: torch.Tensor) -> torch.Tensor:
        return matsign.msign(x, steps=4)

    held, later = new(), new()
    if run.cpu:
        return Case(lambda: f(later), lambda x: distance(x, f(later)), 1e-4)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        f(held)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = f(held)

    def replay() -> torch.Tensor:
        held.copy_(later)
        graph.replay()
        return result

    return Case(replay, lambda x: distance(x, f(later)), 1e-3, {"outside": lambda: f(later)}, 4)


def graphs(run: Run) -> None:
    run.case("msign in a CUDA graph", recorded, run, 8 if run.cpu else 256)
