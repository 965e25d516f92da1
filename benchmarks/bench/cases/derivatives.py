"""Value and gradient in PyTorch, beside autograd through code that one writes by hand."""

from __future__ import annotations

import matsign
from bench.case import Case, agree
from bench.cases import sizes
from bench.cases.matrices import both_sides, definite, gaussian, right, with_radius
from bench.peers import TORCH, module

torch = module("torch")
SIZES = sizes(quick=(64,), usual=(8, 256), long=(512,))


def gradients(f):
    """The gradients of <w, f(...)> in all arguments but the last, which is w."""

    def compute(*arrays):
        *inputs, w = (x.detach().requires_grad_() for x in arrays)
        return torch.autograd.grad((f(*inputs) * w.detach()).sum(), inputs)

    return compute


def tensors(*arrays):
    return tuple(torch.from_numpy(x) for x in arrays)


def newton(m):
    """mcsgn by Newton's iteration, each step on the tape."""
    for _ in range(40):
        inverse = torch.linalg.inv(m)
        mu = (torch.linalg.norm(inverse) / torch.linalg.norm(m)).sqrt().detach()
        m, old = (mu * m + inverse / mu) / 2, m
        if torch.linalg.norm(m - old) < 1e-13 * torch.linalg.norm(m):
            break
    return (3 * m - m @ m @ m) / 2  # removes what the last scaling left


def msign_by_svd(m):
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


def root_by_eigh(a):
    values, v = torch.linalg.eigh(a)
    return (v * values.sqrt()) @ v.mT


def sylvester_by_kronecker(a, b, q):
    n, m = q.shape
    one = torch.eye(n, dtype=a.dtype), torch.eye(m, dtype=a.dtype)
    system = torch.kron(a, one[1]) + torch.kron(one[0], b.mT.contiguous())
    return torch.linalg.solve(system, q.reshape(-1)).reshape(n, m)


def riccati_recursion(a, b, q, r):
    """The stabilising solution by dynamic programming, each step on the tape."""
    x = q
    for _ in range(1000):
        gain = torch.linalg.solve(r + b.mT @ x @ b, b.mT @ x @ a)
        x, old = q + a.mT @ x @ (a - b @ gain), x
        if torch.linalg.norm(x - old) < 1e-13 * torch.linalg.norm(x):
            break
    return x


def plants(rng, count, n):
    """Stable plants, so that the recursion converges in a few steps."""
    m = n // 2
    a, b = with_radius(gaussian(rng, count, n, n), 0.9), gaussian(rng, count, n, m)
    return tensors(a, b, definite(rng, count, n, n), definite(rng, count, m, m), definite(rng, count, n, n))


CASES = [
    Case(
        "mcsgn, eigenvalues around ±2.5", TORCH, "Newton, unrolled",
        lambda rng, n: tensors(both_sides(rng, n, n), gaussian(rng, n, n)),
        gradients(matsign.mcsgn), gradients(newton), SIZES, agree(1e-8),
    ),
    Case(
        "msign, n × n/2", TORCH, "linalg.svd", lambda rng, n: tensors(gaussian(rng, n, n // 2), gaussian(rng, n, n // 2)),
        gradients(matsign.msign), gradients(msign_by_svd), SIZES, agree(1e-8),
    ),
    Case(
        "sqrtm, definite", TORCH, "linalg.eigh", lambda rng, n: tensors(definite(rng, n, n), definite(rng, n, n)),
        gradients(matsign.sqrtm), gradients(root_by_eigh), SIZES, agree(1e-8),
    ),
    Case(
        "solve_sylvester, separable spectra", TORCH, "linalg.solve, kron",
        lambda rng, n: tensors(right(rng, n, n), right(rng, n, n), gaussian(rng, n, n), gaussian(rng, n, n)),
        gradients(matsign.solve_sylvester), gradients(sylvester_by_kronecker), sizes(quick=(8,), usual=(24,)), agree(1e-8),
    ),
    Case(
        "solve_discrete_are", TORCH, "recursion, unrolled", plants,
        gradients(matsign.solve_discrete_are), gradients(riccati_recursion),
        sizes(quick=((100, 8),), usual=((10, 32),), long=((1000, 8),)), agree(1e-8),
    ),
]  # fmt: skip
