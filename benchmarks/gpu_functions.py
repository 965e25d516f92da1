"""Powers, rotations, distances, means, projectors, steps and equations on a GPU: errors, and times beside other ways.

    python benchmarks/gpu_functions.py [OUT.json] [--sections powers jax ...] [--seconds 150] [--cpu]

``--cpu`` runs the same on the CPU at small sizes, to see that the script works. OUT.json is written after every case.

Errors are relative distances from NumPy's answer in double precision, or of an identity that the result must satisfy. Beside the
times are those of PyTorch's decompositions on the GPU, and of SciPy and of matsign with NumPy arrays on the CPU of the machine.
"host calls" lists what was computed by the CPU for arrays on the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import numpy as np
import scipy.linalg as sl
import torch
from arguments import json_file, parser
from on_gpu.cases import Case, Run, distance, here

import matsign

rng = np.random.default_rng(0)


def definite(n: int, *batch: int, least: float = 0.01) -> np.ndarray:
    g = rng.standard_normal((*batch, n, n))
    return g @ g.mT / n + least * np.eye(n)


def general(n: int, *batch: int) -> np.ndarray:
    """Eigenvalues in the right half plane."""
    return rng.standard_normal((*batch, n, n)) / np.sqrt(n) + 2 * np.eye(n)


def by_eigh(a: Any, f: Callable[[Any], Any], eigh: Callable[[Any], Any] = np.linalg.eigh) -> Any:
    values, vectors = eigh(a)
    return (vectors * f(values)[..., None, :]) @ vectors.mT


def in_pieces(f: Callable[[Any], Any], x: torch.Tensor) -> torch.Tensor:
    """Decompositions of a million small matrices at once would reserve hundreds of gigabytes."""
    return torch.cat([f(part) for part in x.split(4096)])


def on(run: Run, *arrays: np.ndarray, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.as_tensor(x.copy(), dtype=dtype, device=run.device) for x in arrays]


# Powers


def inverse_root(run: Run, count: int, n: int, product: bool) -> Case:
    a = definite(n, count)
    g = rng.standard_normal((count, n, n))
    a32, g32 = on(run, a, g, dtype=torch.float32)
    few = min(count, 8)
    expected = by_eigh(a32[:few].double().cpu().numpy(), lambda x: x**-0.25)

    def peer() -> Any:
        root = by_eigh(a32, lambda x: x**-0.25, torch.linalg.eigh)
        return g32 @ root if product else root

    def call() -> Any:
        return matsign.invroot_product(g32, a32, 4, tol=1e-4) if product else matsign.invrootm(a32, 4, tol=1e-4)

    expected = g32[:few].double().cpu().numpy() @ expected if product else expected
    return Case(call, lambda x: distance(x[:few], expected), 3e-4, {"torch.linalg.eigh": peer})


def general_function(run: Run, name: str, n: int, count: int | None) -> Case:
    """Of general matrices, beside SciPy on the CPU (of 20 members of a batch) up to 256 rows."""
    ours, peer = {
        "fractional_matrix_power 0.3": (
            partial(matsign.fractional_matrix_power, t=0.3),
            lambda a: sl.fractional_matrix_power(a, 0.3),
        ),
        "rootm 3": (partial(matsign.rootm, p=3), lambda a: sl.fractional_matrix_power(a, 1 / 3)),
        "invrootm 4": (partial(matsign.invrootm, p=4), lambda a: sl.fractional_matrix_power(a, -0.25)),
        "logm": (matsign.logm, sl.logm),
    }[name]
    a = general(n, *(() if count is None else (count,)))
    (x,) = on(run, a)
    peers: dict[str, Any] = {"matsign on the CPU": lambda: ours(a)}
    members = [a] if count is None else list(a[:20])
    if n <= 256:
        expected = np.stack([peer(m) for m in members])
        peers["SciPy on the CPU"] = (len(members), lambda: [peer(m) for m in members])
    else:
        expected = ours(a)[None]
    return Case(
        lambda: ours(x),
        lambda value: distance(value.reshape(-1, n, n)[: len(members)], expected),
        1e-9,
        peers,
        count or 1,
    )


def tiny_roots(run: Run, name: str, power: float, dtype: torch.dtype) -> Case:
    """Of a million 3 x 3."""
    count = 1000 if run.cpu else 1_000_000
    (a,) = on(run, definite(3, count, least=0.1), dtype=dtype)
    f = {"sqrtm": matsign.sqrtm, "invsqrtm": matsign.invsqrtm, "invrootm 4": partial(matsign.invrootm, p=4)}[name]
    expected = by_eigh(here(a[:1000]), lambda x: x**power)
    peer = partial(by_eigh, f=lambda x: x**power, eigh=torch.linalg.eigh)
    return Case(
        lambda: f(a),
        lambda x: distance(x[:1000], expected),
        1e-12 if dtype == torch.float64 else 1e-5,
        {"torch.linalg.eigh": lambda: in_pieces(peer, a)},
        count,
    )


def powers(run: Run) -> None:
    for product in (False, True):
        what = "G A^{-1/4}" if product else "A^{-1/4}"
        for count, n in ((4, 32),) if run.cpu else ((64, 256), (8, 1024)):
            run.case(f"{what} of {count} x {n} float32 tol=1e-4", inverse_root, run, count, n, product)
    for n, count in ((16, None), (4, 30)) if run.cpu else ((64, None), (256, None), (512, None), (8, 1000)):
        for name in ("fractional_matrix_power 0.3", "rootm 3", "logm", "invrootm 4"):
            run.case(f"{name} general {count or 1} x {n}", general_function, run, name, n, count)
    for name, power in (("invsqrtm", -0.5), ("sqrtm", 0.5), ("invrootm 4", -0.25)):
        for dtype in (torch.float64, torch.float32):
            run.case(f"{name} definite million x 3 {str(dtype)[6:]}", tiny_roots, run, name, power, dtype)


# Polar factors and rotations


def orthogonality(x: torch.Tensor, m: torch.Tensor) -> float:
    """‖XᵀX - I‖ and the asymmetry of XᵀM, relative, for square matrices."""
    x, m = x.double(), m.double()
    h = x.mT @ m
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return max(
        float(torch.linalg.norm(x.mT @ x - eye)) / len(eye) ** 0.5,
        float(torch.linalg.norm(h - h.mT) / torch.linalg.norm(h)),
    )


def one_msign(run: Run, n: int, dtype: torch.dtype, options: dict[str, Any]) -> Case:
    m = torch.randn(n, n, device=run.device).to(dtype)
    # A number of steps leaves small singular values as they are, and bfloat16 has two digits.
    allowed = 0.5 if "steps" in options else 0.1 if dtype == torch.bfloat16 else 1e-3
    peers = {} if n > 2048 or dtype == torch.bfloat16 else {"torch.linalg.svd": lambda: torch.linalg.svd(m)}
    return Case(lambda: matsign.msign(m, **options), lambda x: orthogonality(x, m), allowed, peers)


def kabsch_by_svd(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean_p, mean_q = p.mean(-2, keepdim=True), q.mean(-2, keepdim=True)
    u, _, vh = _small_svd((q - mean_q).mT @ (p - mean_p))
    sign = torch.linalg.det(u @ vh)
    scale = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    rotation = (u * scale[..., None, :]) @ vh
    return rotation, (mean_q - mean_p @ rotation.mT)[..., 0, :]


def _small_svd(h: torch.Tensor) -> list[torch.Tensor]:
    return [torch.cat(x) for x in zip(*(torch.linalg.svd(part) for part in h.split(4096)), strict=True)]


def clouds(run: Run, dtype: torch.dtype, gradient: bool) -> Case:
    count = 1000 if run.cpu else 1_000_000
    p, q = (torch.randn(count, 8, 3, device=run.device, dtype=dtype) for _ in range(2))
    weight = torch.randn(count, 3, 3, device=run.device, dtype=dtype)

    def derivative(f: Callable[..., Any]) -> Any:
        x = p.clone().requires_grad_()
        (f(x, q)[0] * weight).sum().backward()
        return x.grad

    def forward(f: Callable[..., Any]) -> Any:
        with torch.no_grad():
            return f(p, q)[0]

    what = derivative if gradient else forward
    expected = what_on_cpu(what, p, q, weight) if gradient else None
    few = p[:1000].double(), q[:1000].double()
    truth = expected if gradient else kabsch_by_svd(*few)[0]
    # Differences of singular values divide the errors of gradients in single precision: the median of the members counts.
    allowed = 1e-8 if dtype == torch.float64 else 1e-3

    def error(value: Any) -> float:
        x, y = here(value[:1000]), here(truth)
        size = np.linalg.norm(y, axis=(-1, -2))
        return float(np.median(np.linalg.norm(x - y, axis=(-1, -2)) / size))

    return Case(lambda: what(matsign.kabsch), error, allowed, {"torch.linalg.svd": lambda: what(kabsch_by_svd)}, count)


def what_on_cpu(what: Any, p: torch.Tensor, q: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """The gradient of the first thousand clouds, in doubles on the CPU."""
    x = p[:1000].double().cpu().requires_grad_()
    (matsign.kabsch(x, q[:1000].double().cpu())[0] * weight[:1000].double().cpu()).sum().backward()
    return here(x.grad)


def rotations(run: Run) -> None:
    for n in (32,) if run.cpu else (1024, 4096):
        for dtype, options in (
            (torch.float32, {"rtol": 0.0}),  # by default the least of 4096 singular values count as zero
            (torch.float32, {"steps": 5}),
            (torch.bfloat16, {"steps": 5}),
            (torch.bfloat16, {"rtol": 0.0}),
        ):
            run.case(f"msign {n} {str(dtype)[6:]} {options}", one_msign, run, n, dtype, options)
    for gradient in (False, True):
        for dtype in (torch.float32, torch.float64):
            kind = "gradient" if gradient else "forward"
            run.case(f"kabsch of a million clouds of 8 points {str(dtype)[6:]} {kind}", clouds, run, dtype, gradient)


# Distances, means and projectors


def pair_distance(run: Run, name: str, n: int, count: int | None, dtype: torch.dtype) -> Case:
    batch = () if count is None else (count,)
    args: list[np.ndarray] = [definite(n, *batch), definite(n, *batch)]
    if name == "frechet_distance":
        args = [rng.standard_normal((*batch, n)), args[0], rng.standard_normal((*batch, n)), args[1]]
    f = getattr(matsign, name)
    there = on(run, *args, dtype=dtype)
    expected = f(*[here(x) for x in there])

    def by_eigenvalues() -> Any:
        """The trace of (A^{1/2} B A^{1/2})^{1/2}."""
        a, b = there[-2 if name != "frechet_distance" else 1], there[-1]
        root = by_eigh(a, lambda x: x.clamp(min=0).sqrt(), torch.linalg.eigh)
        return torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum(-1)

    def by_cholesky() -> Any:
        inverse = torch.linalg.inv(torch.linalg.cholesky(there[0]))
        return torch.linalg.eigvalsh(inverse @ there[1] @ inverse.mT).log().square().sum(-1).sqrt()

    peer = by_cholesky if name == "riemannian_distance" else by_eigenvalues
    allowed = 1e-9 if dtype == torch.float64 else 1e-3
    return Case(lambda: f(*there), lambda x: distance(x, expected), allowed, {"torch eigh": peer}, count or 1)


def distance_of_samples(run: Run, samples: int, features: int) -> Case:
    x, y = rng.standard_normal((samples, features)), 0.1 + 1.1 * rng.standard_normal((samples, features))
    there = on(run, x, y)
    expected = matsign.frechet_distance_of_samples(x, y)
    return Case(lambda: matsign.frechet_distance_of_samples(*there), lambda v: distance(v, expected), 1e-9)


def mean_of(run: Run, name: str, count: int, n: int) -> Case:
    """The error is that of the equation of the mean, evaluated with NumPy."""
    stack = definite(n, count, least=0.1)
    (there,) = on(run, stack)
    f = getattr(matsign, name)

    def error(value: Any) -> float:
        x = here(value)
        root, inverse = by_eigh(x, np.sqrt), by_eigh(x, lambda v: v**-0.5)
        if name == "karcher_mean":
            logs = by_eigh(inverse @ stack @ inverse, np.log)
            return float(np.linalg.norm(logs.mean(0)) / np.linalg.norm(logs, axis=(-1, -2)).max())
        return distance(by_eigh(root @ stack @ root, np.sqrt).mean(0), x)

    return Case(lambda: f(there), error, 1e-8, {"matsign on the CPU": lambda: f(stack)})


def mean_of_pairs(run: Run, n: int, count: int) -> Case:
    a, b = definite(n, count), definite(n, count)
    there = on(run, a, b)
    expected = matsign.geometric_mean(a, b)
    return Case(
        lambda: matsign.geometric_mean(*there),
        lambda x: distance(x, expected),
        1e-9,
        {"matsign on the CPU": lambda: matsign.geometric_mean(a, b)},
        count,
    )


def distances(run: Run) -> None:
    for n, count in ((32, None), (4, 50)) if run.cpu else ((2048, None), (32, 1000)):
        for name in ("bures_distance", "frechet_distance", "riemannian_distance"):
            n = min(n, 1024) if name == "riemannian_distance" else n
            for dtype in (torch.float64, torch.float32):
                run.case(f"{name} {count or 1} x {n} {str(dtype)[6:]}", pair_distance, run, name, n, count, dtype)
    shape = (40, 20) if run.cpu else (10_000, 2048)
    run.case(f"frechet_distance_of_samples {shape[0]} of {shape[1]}", distance_of_samples, run, *shape)
    for name in ("karcher_mean", "bures_mean"):
        run.case(f"{name} of 100 x 32", mean_of, run, name, *((9, 4) if run.cpu else (100, 32)))
    run.case("geometric_mean 1000 x 32", mean_of_pairs, run, *((4, 20) if run.cpu else (32, 1000)))


def hamiltonian(n: int) -> np.ndarray:
    g = rng.standard_normal((n, n))
    return (g + g.T) / np.sqrt(8 * n)


def occupation(run: Run, n: int, method: str) -> Case:
    """With kT of a fiftieth of the width of the spectrum."""
    (h,) = on(run, hamiltonian(n))
    values, vectors = torch.linalg.eigh(h)
    exact = (vectors * torch.special.expit(-(values - 0.1) / 0.04)) @ vectors.mT
    size = torch.linalg.norm(exact)
    return Case(
        lambda: matsign.fermi_occupation(h, 0.04, 0.1, method=method).density,
        lambda x: float(torch.linalg.norm(x - exact) / size),
        1e-8,
        {"torch.linalg.eigh": lambda: torch.linalg.eigh(h)},
    )


def projector(run: Run, n: int, options: dict[str, Any]) -> Case:
    (h,) = on(run, hamiltonian(n))
    values, vectors = torch.linalg.eigh(h)
    at = float((values[n // 3 - 1] + values[n // 3]) / 2)
    exact = vectors[:, : n // 3] @ vectors[:, : n // 3].mT
    given = {"lowest": n // 3} if options.get("lowest") else {"at": at, "half_plane": "left"}
    return Case(
        lambda: matsign.spectral_projector(h, **given),
        lambda x: float(torch.linalg.norm(x - exact) / torch.linalg.norm(exact)),
        1e-6,
        {"torch.linalg.eigh": lambda: torch.linalg.eigh(h)},
    )


def projectors(run: Run) -> None:
    for n in (32,) if run.cpu else (2048, 4096):
        for method in ("auto", "polynomial"):
            run.case(f"fermi_occupation {n} {method}", occupation, run, n, method)
        run.case(f"spectral_projector {n}", projector, run, n, {})
    run.case("spectral_projector, lowest third of 2048", projector, run, 32 if run.cpu else 2048, {"lowest": True})


def sections() -> dict[str, Callable[[Run], None]]:
    from on_gpu.equations import equations, gradients
    from on_gpu.jitted import jitted
    from on_gpu.steps import graphs, nccl, steps, warm_starts

    return {
        "powers": powers,
        "rotations": rotations,
        "warm starts": warm_starts,
        "distances": distances,
        "projectors": projectors,
        "steps": steps,
        "equations": equations,
        "gradients": gradients,
        "NCCL": nccl,
        "jax": jitted,
        "CUDA graphs": graphs,
    }


def main() -> None:
    known = sections()
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--sections", nargs="+", choices=known, default=list(known), help="what to measure")
    options.add_argument("--seconds", type=float, default=900, help="after which no further case begins")
    options.add_argument("--section-seconds", type=float, default=300, help="the same for the cases of one section")
    options.add_argument("--each", type=float, default=0.4, help="seconds after which a case is timed no more")
    options.add_argument("--cpu", action="store_true", help="the same on the CPU at small sizes")
    chosen = options.parse_args()
    if not (chosen.cpu or torch.cuda.is_available()):
        options.error("there is no GPU; --cpu shows that the script works")
    run = Run(chosen.cpu, chosen.out, chosen.seconds, chosen.section_seconds, chosen.each)
    print(run.figures["machine"], flush=True)
    for name in chosen.sections:
        run.start(name)
        known[name](run)
    wrong = [
        f"{s}: {c}" for s, rows in run.figures.items() if s != "machine" for c, r in rows.items() if "failure" in r
    ]
    if wrong:
        raise SystemExit("failed: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
