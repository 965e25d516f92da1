"""Orthogonalisation in float32 as Muon needs it, and steps of the optimiser."""

from __future__ import annotations

import math
from functools import partial

import matsign
from bench.case import Case, agree, nearer
from bench.cases import sizes
from bench.cases.matrices import gaussian
from bench.peers import TORCH, module

torch = module("torch")
SHAPES = sizes(quick=((256, 256),), usual=((256, 1024), (1024, 1024), (64, 128, 512)), long=((1024, 4096),))
NEARER = "distance from the exact polar factor in the 2-norm; the other's is the limit"


def single_precision(rng, *shape):
    return (torch.from_numpy(gaussian(rng, *shape)).float(),)


def five_steps(g):
    """Newton-Schulz with Muon's coefficients, of a matrix or a stack that is not taller than wide."""
    x = g / torch.linalg.vector_norm(g, dim=(-1, -2), keepdim=True).clamp(min=1e-7)
    add = torch.addmm if g.ndim == 2 else torch.baddbmm
    for _ in range(5):
        r = x @ x.mT
        x = add(x, add(r, r, r, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x


def msign_by_svd(m):
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


class PlainMuon:
    """Muon in float32, one parameter after the other, as it is written in many scripts."""

    def __init__(self, params, lr, weight_decay):
        self.params, self.lr, self.decay = params, lr, weight_decay
        self.momentum = [torch.zeros_like(p) for p in params]

    def step(self):
        with torch.no_grad():
            for p, buffer in zip(self.params, self.momentum, strict=True):
                buffer.lerp_(p.grad, 0.05)
                g = p.grad.lerp(buffer, 0.95)
                update = five_steps(g.mT).mT if g.shape[0] > g.shape[1] else five_steps(g)
                p.mul_(1 - self.lr * self.decay).add_(update, alpha=-self.lr * scale(p))


def scale(p):
    return math.sqrt(max(1, p.shape[0] / p.shape[1]))


def optimisers(other):
    """Two optimisers of the same matrices with the same gradients: those of two layers of a transformer of this width."""

    def setup(rng, width):
        shapes = ([(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]) * 2
        gradients = [single_precision(rng, *shape)[0] for shape in shapes]
        return [build(parameters(gradients)) for build in (ours, other)]

    return setup


def parameters(gradients):
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = g.clone()
    return params


def ours(params):
    from matsign.optim import Muon

    return Muon(params, lr=1e-3, weight_decay=0.0)


def plain(params):
    return PlainMuon(params, lr=1e-3, weight_decay=0.0)


def of_torch(params):
    return torch.optim.Muon(params, lr=1e-3, weight_decay=0.0)


def step(optimiser):
    """A step, and the parameters after it."""
    optimiser.step()
    return tuple(params_of(optimiser))


def params_of(optimiser):
    return optimiser.params if isinstance(optimiser, PlainMuon) else optimiser.param_groups[0]["params"]


def exact_first_step(mine, other):
    """The parameters after a first step with exact polar factors, from zero."""
    return tuple(-1e-3 * scale(p) * msign_by_svd(p.grad.double()) for p in params_of(other))


STEP = {"check": nearer(exact_first_step), "distance": NEARER, "size_name": "2 layers of width {}".format}
CASES = [
    Case(
        "msign, steps=4, float32", TORCH, "Newton-Schulz, 5 steps", single_precision,
        partial(matsign.msign, steps=4), five_steps, SHAPES, nearer(lambda g: msign_by_svd(g.double())), NEARER,
    ),
    Case(
        "msign, tol=1e-2, float32", TORCH, "linalg.svd", single_precision,
        partial(matsign.msign, tol=1e-2), msign_by_svd, sizes(quick=((256, 256),), usual=((512, 512),)), agree(1e-2),
    ),
    Case(
        "optim.Muon, a step, float32", TORCH, "Newton-Schulz, 5 steps", optimisers(plain),
        lambda mine, other: step(mine), lambda mine, other: step(other), sizes(quick=(64,), usual=(256,)), **STEP,
    ),
    Case(
        "optim.Muon, a step", TORCH, "optim.Muon, bfloat16", optimisers(of_torch),
        lambda mine, other: step(mine), lambda mine, other: step(other), sizes(quick=(64,), long=(256,)), **STEP,
    ),
]  # fmt: skip
