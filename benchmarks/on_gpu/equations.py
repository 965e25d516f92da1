"""The cases of gpu_functions.py that solve equations, and derivatives of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg as sl
import torch

import matsign
from on_gpu.cases import Case, Run, distance, here

rng = np.random.default_rng(1)

# Matrices of a model and of a cost, by their letters in `MODEL`.
Model = dict[str, np.ndarray]


def model(n: int, *batch: int) -> Model:
    def gaussian(*shape: int) -> np.ndarray:
        return rng.standard_normal((*batch, *shape)) / np.sqrt(shape[0])

    m, eye = max(2, n // 8), np.eye(n)
    g, h = gaussian(n, n), gaussian(n, n)
    return {
        "a": g - 2 * eye,
        "plus": h + 2 * eye,
        "small": 0.4 * g,
        "any": g,
        "b": gaussian(n, m),
        "c": gaussian(m, n),
        "q": h @ h.mT + 0.1 * eye,
        "r": np.broadcast_to(np.eye(m), (*batch, m, m)).copy(),
        "f": gaussian(n, n),
    }


# For each function: the call, which matrices of the model it takes, what is compared of the result, SciPy's way.
FUNCTIONS: dict[str, tuple[Callable[..., Any], str, Callable[[Any], Any], Callable[..., Any] | None]] = {
    "solve_sylvester": (matsign.solve_sylvester, "plus plus f", lambda x: x, sl.solve_sylvester),
    "solve_sylvester mixed": (matsign.solve_sylvester, "any f f", lambda x: x, sl.solve_sylvester),
    "solve_continuous_lyapunov": (matsign.solve_continuous_lyapunov, "a q", lambda x: x, sl.solve_continuous_lyapunov),
    "solve_discrete_lyapunov": (matsign.solve_discrete_lyapunov, "small q", lambda x: x, sl.solve_discrete_lyapunov),
    "solve_continuous_are": (matsign.solve_continuous_are, "any b q r", lambda x: x, sl.solve_continuous_are),
    "solve_discrete_are": (matsign.solve_discrete_are, "any b q r", lambda x: x, sl.solve_discrete_are),
    "solve_discrete_sylvester": (matsign.solve_discrete_sylvester, "small small f", lambda x: x, None),
    "hinf_norm": (matsign.hinf_norm, "a b c", lambda x: x[0], None),
    "h2_norm": (matsign.h2_norm, "a b c", lambda x: x, None),
    "hankel_singular_values": (matsign.hankel_singular_values, "a b c", lambda x: x, None),
    "balanced_truncation 4": (partial(matsign.balanced_truncation, order=4), "a b c", lambda x: x.hsv, None),
    "solve_differential_riccati": (
        partial(matsign.solve_differential_riccati, t=0.7),
        "any b q r q",
        lambda x: x,
        None,
    ),
    "dlqr_finite_horizon 20": (
        partial(matsign.dlqr_finite_horizon, steps=20),
        "any b q r",
        lambda x: x.solution,
        None,
    ),
    "lyapunov_factor": (matsign.lyapunov_factor, "a b", lambda z: z @ z.mT, None),
}


def equation(run: Run, name: str, n: int, count: int | None) -> Case:
    """Beside matsign with NumPy arrays, and SciPy (20 members of a batch), on the CPU."""
    f, letters, part, peer = FUNCTIONS[name]
    given = model(n, *(() if count is None else (count,)))
    args = [given[k] for k in letters.split()]
    there = [torch.as_tensor(x.copy(), device=run.device) for x in args]
    expected = here(part(f(*args)))
    peers: dict[str, Any] = {"matsign on the CPU": lambda: f(*args)}
    if peer is not None:
        members = [args] if count is None else [[x[k] for x in args] for k in range(20)]
        peers["SciPy on the CPU"] = (len(members), lambda: [peer(*xs) for xs in members])
    return Case(lambda: f(*there), lambda x: distance(part(x), expected), 1e-8, peers, count or 1)


def equations(run: Run) -> None:
    for n, count in ((8, None), (4, 30)) if run.cpu else ((64, None), (8, 1000)):
        for name in FUNCTIONS:
            run.case(f"{name} {count or 1} x {n}", equation, run, name, n, count)


# Derivatives


def symmetric(x: np.ndarray) -> np.ndarray:
    return x + np.swapaxes(x, -1, -2) if x.ndim > 1 and x.shape[-1] == x.shape[-2] else x


def derivative(run: Run, f: Callable[..., Any], args: list[np.ndarray]) -> Case:
    """First and second derivatives along one direction, beside central differences of the function on NumPy arrays."""
    directions = [symmetric(rng.standard_normal(x.shape)) for x in args]
    directions = [0.1 * d * np.linalg.norm(x) / np.linalg.norm(d) for d, x in zip(directions, args, strict=True)]

    def along(t: float) -> np.ndarray:
        value = f(*(x + t * d for x, d in zip(args, directions, strict=True)))
        return np.asarray(value)

    weight = rng.standard_normal(along(0.0).shape)
    near = {k: float(np.sum(weight * along(0.01 * k))) for k in range(-4, 5)}
    first = [0, 4 / 5, -1 / 5, 4 / 105, -1 / 280]
    second = [-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560]
    d1 = sum(first[k] * (near[k] - near[-k]) for k in range(1, 5)) / 0.01
    d2 = (second[0] * near[0] + sum(second[k] * (near[k] + near[-k]) for k in range(1, 5))) / 0.01**2
    scale = sum(abs(x) for x in near.values()) / len(near)

    def call() -> torch.Tensor:
        inputs = [torch.as_tensor(x.copy(), device=run.device).requires_grad_() for x in args]
        moves = [torch.as_tensor(d.copy(), device=run.device) for d in directions]
        total = (f(*inputs) * torch.as_tensor(weight, device=run.device)).sum()
        slopes = torch.autograd.grad(total, inputs, create_graph=True)
        slope = sum((g * d).sum() for g, d in zip(slopes, moves, strict=True))
        curves = torch.autograd.grad(slope, inputs, allow_unused=True)
        curve = sum((g * d).sum() for g, d in zip(curves, moves, strict=True) if g is not None)
        return torch.stack([slope.detach(), torch.as_tensor(curve, device=run.device)])

    def error(value: torch.Tensor) -> float:
        slope, curve = here(value)
        return float(max(abs(slope - d1) / max(abs(d1), scale), abs(curve - d2) / max(abs(d2), scale)))

    return Case(call, error, 1e-6)


def functions_of_matrices() -> dict[str, tuple[Callable[..., Any], list[np.ndarray]]]:
    def gaussian(*shape: int) -> np.ndarray:
        return rng.standard_normal((3, *shape))

    spd = [g @ g.mT / 4 + 0.3 * np.eye(4) for g in (gaussian(4, 4) for _ in range(3))]
    right = gaussian(4, 4) / 4 + 2 * np.eye(4)
    return {
        "msign": (matsign.msign, [gaussian(5, 4)]),
        "invrootm 4": (partial(matsign.invrootm, p=4), spd[:1]),
        "rootm 3 general": (partial(matsign.rootm, p=3), [right]),
        "invroot_product 4": (partial(matsign.invroot_product, p=4), [gaussian(2, 4), spd[0]]),
        "fractional_matrix_power 0.3": (partial(matsign.fractional_matrix_power, t=0.3), [right]),
        "logm": (matsign.logm, [right]),
        "bures_distance squared": (partial(matsign.bures_distance, squared=True), spd[:2]),
        "fidelity": (matsign.fidelity, spd[:2]),
        "frechet_distance": (matsign.frechet_distance, [gaussian(4), spd[0], gaussian(4), spd[1]]),
        "riemannian_distance": (matsign.riemannian_distance, spd[:2]),
        "geometric_mean 0.3": (lambda a, b: matsign.geometric_mean(a, b, 0.3), spd[:2]),
        "karcher_mean": (matsign.karcher_mean, spd[:1]),
        "bures_mean": (matsign.bures_mean, spd[:1]),
        "nearest_rotation": (matsign.nearest_rotation, [gaussian(3, 3)]),
        "procrustes": (lambda a, b: matsign.procrustes(a, b)[0], [gaussian(6, 3), gaussian(6, 3)]),
        "kabsch": (lambda p, q: matsign.kabsch(p, q).rotation, [gaussian(6, 3), gaussian(6, 3)]),
        "fermi_occupation": (lambda h: matsign.fermi_occupation(h, 0.5, 0.2).density, [symmetric(gaussian(4, 4))]),
        "spectral_projector": (partial(matsign.spectral_projector, at=0.1), [symmetric(gaussian(4, 4))]),
        "mclip": (matsign.mclip, [gaussian(4, 4)]),
        "soft_threshold": (partial(matsign.soft_threshold, t=0.3), [gaussian(4, 4)]),
    }


def equations_of_four() -> dict[str, tuple[Callable[..., Any], list[np.ndarray]]]:
    given = model(4, 3)

    made = {}
    for name, (f, letters, part, _) in FUNCTIONS.items():
        if name.startswith("balanced") or "mixed" in name:
            continue
        made[name] = (lambda *xs, f=f, part=part: part(f(*xs)), [given[k] for k in letters.split()])
    return made


def gradients(run: Run) -> None:
    for name, (f, args) in (functions_of_matrices() | equations_of_four()).items():
        run.case(f"{name}, to order 2, 3 x 4", derivative, run, f, args)
