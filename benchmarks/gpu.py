"""Every function on a GPU: its error, and its time beside what the array library or SciPy offers.

    python benchmarks/gpu.py [OUT.json] [--sections accuracy jax ...] [--cpu]

``--cpu`` runs the same on the CPU at small sizes, to see that the script works. With OUT.json, the figures of sections that are
not run stay as they are there.

Errors are relative distances to NumPy's answer in double precision. Times are medians of runs that end with a synchronisation.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import numpy as np
import scipy.linalg as sl
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
    inputs = max(1, n // 8)
    b = gaussian(n, inputs) / np.sqrt(n)
    r = np.broadcast_to(np.eye(inputs), (*batch, inputs, inputs))
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
        "psd_project": (g + g.mT,),
        "mclip": (gaussian(n, n) / np.sqrt(n),),
        "solve_sylvester": (right, h + 2 * eye, gaussian(n, n)),
        "solve_continuous_lyapunov": (-right, spd),
        "solve_discrete_lyapunov": (0.4 * g, spd),
        "solve_riccati": (h - 3 * eye, g + 3 * eye, gaussian(n, n), gaussian(n, n) / n),
        "solve_continuous_are": (g, b, spd, r),
        "solve_discrete_are": (0.5 * g, b, spd, r),
    }


def parts(value: object) -> list[np.ndarray]:
    values = value if isinstance(value, tuple) else (value,)
    return [np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x, np.float64) for x in values]


def distance(value: object, truth: object) -> float:
    return max(
        float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in zip(parts(value), parts(truth), strict=True)
    )


def sync() -> None:
    if not CPU:
        torch.cuda.synchronize()


def median(f, finish=sync, runs: int = 5, most: float = 5.0) -> float:
    """The median time of `f`; of fewer runs if they take more seconds than `most`."""
    f()
    finish()
    times = []
    while len(times) < runs and (not times or sum(times) < most):
        start = time.perf_counter()
        f()
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(rows: dict, name: str, value) -> None:
    rows[name] = value
    print(f"  {name}: {value if isinstance(value, str) else format(value, '.3g')}", flush=True)


def attempt(rows: dict, name: str, f) -> None:
    """The figure, or the error that came instead: one missing figure does not lose the others."""
    try:
        report(rows, name, f())
    except Exception as error:
        report(rows, name, f"{type(error).__name__}: {str(error)[:200]}")


def accuracy() -> dict:
    """Relative errors in PyTorch."""
    rows: dict = {}
    for n, batch in ((96, ()), (17, (3,))):
        for name, args in problems(n, batch).items():
            f = getattr(matsign, name)
            truth = f(*args)
            for dtype in ("float64", "float32"):
                there = [torch.as_tensor(x.copy(), dtype=getattr(torch, dtype), device=DEVICE) for x in args]

                def error(f=f, there=there, truth=truth) -> float:
                    value = f(*there)
                    assert all(x.device.type == DEVICE for x in (value if isinstance(value, tuple) else (value,)))
                    return distance(value, truth)

                attempt(rows, f"{name} {(*batch, n)} {dtype}", error)
    return rows


def jax_accuracy() -> dict:
    """Relative errors in JAX under jit, and the time to trace, compile and run the first call."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rows: dict = {"platform": jax.devices()[0].platform}
    for name, args in problems(17, (3,)).items():
        f = getattr(matsign, name)
        truth = f(*args)
        for dtype in ("float64", "float32"):
            start = time.perf_counter()
            attempt(
                rows,
                f"{name} {dtype}",
                lambda f=f, args=args, dtype=dtype, truth=truth: distance(
                    jax.jit(f)(*[jnp.asarray(x, dtype) for x in args]), truth
                ),
            )
            report(rows, f"{name} {dtype}, seconds of the first call", time.perf_counter() - start)
    return rows


def jax_speed() -> dict:
    """Milliseconds of jitted functions in JAX, beside its own eigh."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rows: dict = {}
    for n, batch in ((8, (100 if CPU else 10_000,)), (64 if CPU else 1024, ())):
        args = {k: [jnp.asarray(x) for x in v] for k, v in problems(n, batch).items()}
        own, spd = jax.jit(jnp.linalg.eigh), args["sqrtm_pair"][0]
        attempt(
            rows,
            f"jnp.linalg.eigh {(*batch, n)}",
            lambda own=own, spd=spd: 1e3 * median(lambda: jax.block_until_ready(own(spd)), lambda: None),
        )
        for name in ("msign", "mcsgn", "sqrtm", "invsqrtm", "solve_sylvester", "solve_continuous_are"):
            f = jax.jit(getattr(matsign, name))
            attempt(
                rows,
                f"{name} {(*batch, n)}",
                lambda f=f, x=args[name]: 1e3 * median(lambda: jax.block_until_ready(f(*x)), lambda: None),
            )
    return rows


def large() -> dict:
    """Milliseconds of one large matrix in PyTorch, with PyTorch's own function where there is one."""
    rows: dict = {}

    def put(name: str, f) -> None:
        attempt(rows, name, lambda: 1e3 * median(f))

    for n in (64,) if CPU else (1024, 4096):
        m = torch.randn(n, n, device=DEVICE)
        put(f"product f32 {n}", lambda m=m: m @ m)
        put(f"msign f32 {n}", lambda m=m: matsign.msign(m))
        put(f"msign f32 {n} tol=1e-2", lambda m=m: matsign.msign(m, tol=1e-2, rtol=1e-3))
        put(f"torch svd f32 {n}", lambda m=m: torch.linalg.svd(m, full_matrices=False))
    for n in (64,) if CPU else (512, 2048):
        args = {k: [torch.as_tensor(x.copy(), device=DEVICE) for x in v] for k, v in problems(n).items()}
        put(f"product f64 {n}", lambda x=args["mcsgn"][0]: x @ x)
        for name in (
            "msign", "mcsgn", "sqrtm", "invsqrtm", "solve_sylvester", "solve_continuous_lyapunov", "solve_riccati",
            "solve_continuous_are", "solve_discrete_are",
        ):  # fmt: skip
            put(f"{name} f64 {n}", lambda name=name, args=args: getattr(matsign, name)(*args[name]))
        spd = args["sqrtm_pair"][0]
        put(f"torch eigh f64 {n}", lambda spd=spd: torch.linalg.eigh(spd))
        put(f"torch svd f64 {n}", lambda spd=spd: torch.linalg.svd(spd))
    n = 64 if CPU else 512
    given = problems(n)
    for name, peer in (
        ("sqrtm", sl.sqrtm),
        ("solve_sylvester", sl.solve_sylvester),
        ("solve_continuous_lyapunov", sl.solve_continuous_lyapunov),
    ):
        attempt(
            rows,
            f"SciPy on the CPU {name} f64 {n}",
            lambda peer=peer, x=given[name]: 1e3 * median(lambda: peer(*x), runs=2),
        )
    return rows


def batches() -> dict:
    """Microseconds a member for batches in PyTorch, beside a loop over SciPy on the CPU (of fewer members)."""
    rows: dict = {}
    peers = {
        "sqrtm": sl.sqrtm,
        "solve_sylvester": sl.solve_sylvester,
        "solve_continuous_lyapunov": sl.solve_continuous_lyapunov,
        "solve_continuous_are": sl.solve_continuous_are,
        "solve_discrete_are": sl.solve_discrete_are,
        "polar": sl.polar,
        "mcsgn": sl.signm,
    }
    for n, count in ((8, 100),) if CPU else ((8, 10_000), (32, 2000), (3, 1_000_000)):
        given = problems(n, (count,))
        for name in ("msign", "invsqrtm", *peers) if n > 3 else ("polar", "sqrtm", "invsqrtm"):
            args = [torch.as_tensor(x.copy(), device=DEVICE) for x in given[name]]
            attempt(
                rows,
                f"{name} f64 {count} x {n}",
                lambda name=name, args=args, count=count: (
                    1e6 * median(lambda: getattr(matsign, name)(*args, errors="nan"), runs=3) / count
                ),
            )
            if name in peers:
                few = [x[:50] for x in given[name]]

                def loop(peer=peers[name], few=few) -> None:
                    for one in zip(*few, strict=True):
                        peer(*one)

                attempt(rows, f"SciPy on the CPU {name} f64 {n}", lambda loop=loop: 1e6 * median(loop, runs=2) / 50)
        spd = torch.as_tensor(given["sqrtm_pair"][0], device=DEVICE)
        attempt(
            rows,
            f"torch eigh f64 {count} x {n}",
            lambda spd=spd, count=count: 1e6 * median(lambda: torch.linalg.eigh(spd), runs=3) / count,
        )
    return rows


def methods() -> dict:
    """Milliseconds of msign by each method: they decide what method="auto" takes."""
    rows: dict = {}
    shapes = [(64, 64)] if CPU else [(1000, 16, 16), (100, 128, 128), (512, 512), (2048, 2048), (2048, 512)]
    for dtype in (torch.float32, torch.float64):
        for shape in shapes:
            m = torch.randn(*shape, dtype=dtype, device=DEVICE)
            for method in ("polynomial", "newton", "svd", "gram"):
                attempt(
                    rows,
                    f"{str(dtype)[6:]} {shape} {method}",
                    lambda m=m, method=method: (
                        1e3 * median(lambda: matsign.msign(m, method=method, errors="nan"), runs=3, most=3.0)
                    ),
                )
    return rows


def halves() -> dict:
    """Milliseconds of msign in half and in single precision beside torch.optim.Muon, and errors."""
    from torch.optim import _muon

    theirs = _muon._zeropower_via_newtonschulz
    rows: dict = {}
    for shape in [(4, 64, 128)] if CPU else [(1, 4096, 4096), (1, 1024, 4096), (64, 1024, 4096), (256, 512, 512)]:
        m = torch.randn(*shape, device=DEVICE)
        for precision in ("half", "full"):
            attempt(
                rows,
                f"msign steps=4 {precision} {shape}",
                lambda m=m, p=precision: 1e3 * median(lambda: matsign.msign(m, steps=4, precision=p)),
            )
        attempt(
            rows,
            f"torch.optim.Muon {shape}",
            lambda m=m: 1e3 * median(lambda: [theirs(x, (3.4445, -4.7750, 2.0315), 5, 1e-7) for x in m]),
        )
        exact = matsign.msign(m[:1].double(), tol=1e-10)
        for precision in ("half", "full"):
            attempt(
                rows,
                f"distance of msign tol=.05 {precision} from msign, spectral {shape}",
                lambda m=m, p=precision, exact=exact: float(
                    torch.linalg.matrix_norm(matsign.msign(m[:1], steps=7, precision=p).double() - exact, 2).max()
                ),
            )
    return rows


def triangles() -> dict:
    """The time of a whole product over that of one triangle by Triton: it sets `_TRITON_FROM_SIZE` in backends/torch.py."""
    if CPU:
        return {}
    from matsign.backends.triton_kernels import symmetric_product

    rows: dict = {}
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
            attempt(
                rows,
                f"{str(dtype)[6:]} {count} x {n} x {k}",
                lambda a=a: median(lambda: a @ a.mT) / median(lambda: symmetric_product(a, a)),
            )
    return rows


def recorded() -> dict:
    """Largest difference between a CUDA graph of msign in four steps, replayed on new numbers, and the plain call."""
    if CPU:
        return {}
    rows: dict = {}

    def difference() -> float:
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

    attempt(rows, "largest difference", difference)
    return rows


SECTIONS = {
    "accuracy": accuracy,
    "jax accuracy": jax_accuracy,
    "large": large,
    "batches": batches,
    "methods": methods,
    "halves": halves,
    "triangles": triangles,
    "CUDA graph": recorded,
    "jax": jax_speed,
}


def main() -> None:
    global CPU, DEVICE
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    options.add_argument("--cpu", action="store_true", help="the same on the CPU at small sizes")
    chosen = options.parse_args()
    if chosen.cpu:
        CPU, DEVICE = True, "cpu"
    elif not torch.cuda.is_available():
        options.error("there is no GPU; --cpu shows that the script works")
    result = json.loads(chosen.out.read_text()) if chosen.out and chosen.out.exists() else {}
    result["machine"] = {
        "device": "cpu" if CPU else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    print(result["machine"], flush=True)
    for name in chosen.sections:
        print(name, flush=True)
        start = time.perf_counter()
        result[name] = SECTIONS[name]()
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)
        if chosen.out:
            chosen.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
