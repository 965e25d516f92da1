"""Every function on a GPU: right, and how fast beside what the array library offers there.

    python benchmarks/gpu.py [OUT.json] [--cpu]

``--cpu`` runs the same on the CPU at small sizes, to see that the script works.

Errors are relative distances to NumPy's f64 answer on the CPU. Times are medians of runs that end with a synchronisation.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import numpy as np
import torch
from arguments import json_file, parser

import matsign

CPU, DEVICE = False, "cuda"  # unless --cpu says so


def problems(n: int, batch: tuple[int, ...] = ()) -> dict[str, tuple[np.ndarray, ...]]:
    """Arguments for every function, well posed."""
    rng = np.random.default_rng(n)

    def gaussian(*shape: int) -> np.ndarray:
        return rng.standard_normal((*batch, *shape))

    eye, g = np.eye(n), gaussian(n, n) / np.sqrt(n)
    right, h = g + 2 * eye, gaussian(n, n) / np.sqrt(n)
    spd, other = g @ g.mT + 0.1 * eye, h @ h.mT + 0.1 * eye
    return {
        "msign": (gaussian(n, n),),
        "polar": (gaussian(n, n // 2),),
        "mcsgn": (g + 0.3 * eye,),
        "matrix_abs": (g + 0.3 * eye,),
        "spectral_projector": (g + 0.3 * eye,),
        "sqrtm": (right,),
        "invsqrtm": (spd,),
        "sqrtm_pair": (spd,),
        "coupled_root": (spd, other),
        "geometric_mean": (spd, other),
        "solve_sylvester": (right, h + 2 * eye, gaussian(n, n)),
        "solve_riccati": (h - 3 * eye, g + 3 * eye, gaussian(n, n), gaussian(n, n) / n),
    }


def parts(value: object) -> list[np.ndarray]:
    values = value if isinstance(value, tuple) else (value,)
    return [np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x, np.float64) for x in values]


def distance(value: object, truth: object) -> float:
    return max(
        float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in zip(parts(value), parts(truth), strict=True)
    )


def median(f, sync, runs: int = 5) -> float:
    f()
    sync()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        sync()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def accuracy() -> dict[str, dict[str, float]]:
    """Relative error of every function, per library and dtype."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rows: dict[str, dict[str, float]] = {}
    for n, batch in ((96, ()), (17, (3,))):
        for name, args in problems(n, batch).items():
            f, row = getattr(matsign, name), rows.setdefault(f"{name} {(*batch, n)}", {})
            truth = f(*args)
            for dtype in ("float64", "float32"):
                cuda = [torch.as_tensor(x, dtype=getattr(torch, dtype), device=DEVICE) for x in args]
                jaxed = [jnp.asarray(x, dtype) for x in args]
                value = f(*cuda)
                assert all(x.device.type == DEVICE for x in (value if isinstance(value, tuple) else (value,)))
                row[f"torch {dtype}"] = distance(value, truth)
                row[f"jax.jit {dtype}"] = distance(jax.jit(f)(*jaxed), truth)
    return rows


def speed() -> dict[str, float]:
    """Seconds on the GPU, with torch's own function where there is one."""
    rows: dict[str, float] = {}
    sync = (lambda: None) if CPU else torch.cuda.synchronize

    def put(name: str, f) -> None:
        rows[name] = median(f, sync)
        print(f"  {name}: {rows[name] * 1e3:.2f} ms", flush=True)

    for n in (64,) if CPU else (1024, 4096):
        m = torch.randn(n, n, device=DEVICE)
        put(f"msign f32 {n}", lambda m=m: matsign.msign(m))
        put(f"msign f32 {n} tol=1e-2", lambda m=m: matsign.msign(m, tol=1e-2, rtol=1e-3))
        put(f"torch svd f32 {n}", lambda m=m: torch.linalg.svd(m, full_matrices=False))
    for n in (64,) if CPU else (512, 2048):
        args = {k: [torch.as_tensor(x, device=DEVICE) for x in v] for k, v in problems(n).items()}
        for name in ("mcsgn", "sqrtm", "solve_sylvester", "solve_riccati"):
            put(f"{name} f64 {n}", lambda name=name, args=args: getattr(matsign, name)(*args[name]))
        spd = args["sqrtm_pair"][0]
        put(f"torch eigh f64 {n}", lambda spd=spd: torch.linalg.eigh(spd))
    batch = {
        k: [torch.as_tensor(x, device=DEVICE) for x in v] for k, v in problems(8, (100 if CPU else 10_000,)).items()
    }
    for name in ("mcsgn", "sqrtm", "solve_sylvester"):
        put(f"{name} f64 batch of 8", lambda name=name: getattr(matsign, name)(*batch[name], errors="nan"))
    return rows


def triangles() -> dict[str, float]:
    """The time of a whole product over that of one triangle by Triton: it sets `_TRITON_FROM_SIZE` in backends/torch.py."""
    from matsign.backends.triton_kernels import symmetric_product

    rows: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for count, n, k in (
            (1, 512, 2048),
            (1, 1024, 1024),
            (1, 2048, 2048),
            (1, 4096, 4096),
            (1, 8192, 8192),
            (64, 1024, 4096),
        ):
            a = torch.randn(count, n, k, device=DEVICE).to(dtype)
            whole, half = (
                median(lambda f=f, a=a: f(a), torch.cuda.synchronize)
                for f in (lambda a: a @ a.mT, lambda a: symmetric_product(a, a))
            )
            rows[f"{str(dtype)[6:]} {count} x {n} x {k}"] = whole / half
            print(f"  {str(dtype)[6:]} {count} x {n} x {k}: {whole / half:.2f} of one triangle's time", flush=True)
    return rows


def recorded() -> float:
    """Largest difference between a CUDA graph of msign in four steps, replayed on new numbers, and the plain call."""
    held = torch.randn(4, 256, 512, device=DEVICE)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        matsign.msign(held, steps=4)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = matsign.msign(held, steps=4)
    held.copy_(torch.randn_like(held))
    graph.replay()
    return float((result - matsign.msign(held, steps=4)).abs().max())


def main() -> None:
    global CPU, DEVICE
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--cpu", action="store_true", help="the same on the CPU at small sizes")
    chosen = options.parse_args()
    if chosen.cpu:
        CPU, DEVICE = True, "cpu"
    elif not torch.cuda.is_available():
        options.error("there is no GPU; --cpu shows that the script works")
    machine = {
        "device": "cpu" if CPU else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    print(machine, flush=True)
    result = {"machine": machine, "accuracy": accuracy()}
    for name, row in result["accuracy"].items():
        print(name, {k: f"{v:.1e}" for k, v in row.items()}, flush=True)
    result["seconds"] = speed()
    if not CPU:
        result["whole over triangle"] = triangles()
        result["CUDA graph"] = recorded()
        print("CUDA graph of msign off by", result["CUDA graph"], flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
