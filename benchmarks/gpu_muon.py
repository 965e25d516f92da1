"""Steps of Muon in CUDA graphs: right when they are replayed, and how fast beside steps outside of a graph.

    python benchmarks/gpu_muon.py [OUT.json] [--cpu]

``--cpu`` runs the same at small sizes without graphs, to see that the script works.

For every way to take a step, one optimiser takes it in a CUDA graph that is replayed with new gradients and with a learning rate
that is changed in place, and another one outside. The distance of their parameters, over the distance that these have moved, and
whether their states are equal. Then a whole pass with its step in one graph, and the times of a step.
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from arguments import json_file, parser

from matsign.optim import Muon

Params = list[torch.nn.Parameter]

# Options of the optimiser, options of its group under AdamW, dtype of the parameters, the allowed distance.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], torch.dtype, float]] = {
    "default": ({}, {}, torch.float32, 1e-2),
    "full precision": ({"precision": "full"}, {}, torch.float32, 1e-3),
    "a tolerance": ({"tol": 0.05}, {}, torch.float32, 1e-3),
    "Newton-Schulz": ({"ns_steps": 5, "precision": "full"}, {}, torch.float32, 1e-3),
    "momenta in bfloat16": ({"momentum_dtype": "bfloat16", "precision": "full"}, {}, torch.float32, 1e-2),
    # Parameters near 1 are rounded by up to 0.004, a good part of a step.
    "parameters in bfloat16": ({}, {}, torch.bfloat16, 0.5),
    "AdamW with foreach": ({"precision": "full"}, {"foreach": True}, torch.float32, 1e-3),
    "AdamW one by one": ({"precision": "full"}, {"foreach": False}, torch.float32, 1e-3),
    "AdamW fused": ({"precision": "full"}, {"fused": True, "amsgrad": True}, torch.float32, 1e-3),
}


class Device:
    """The GPU, or the CPU in its place, with smaller sizes and no graphs."""

    def __init__(self, cpu: bool) -> None:
        self.cpu, self.name = cpu, "cpu" if cpu else "cuda"
        self.unit = 16 if cpu else 512

    def shapes(self) -> list[tuple[int, ...]]:
        n = self.unit
        return [(n, n)] * 4 + [(4 * n, n), (n, 4 * n), (n // 4, 8, 3, 3), (2 * n, n), (n,), (3,)]

    def synchronise(self) -> None:
        if not self.cpu:
            torch.cuda.synchronize()

    def replayable(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """A function that replays a step from a graph. A first step has been taken outside of it, on another stream."""
        if self.cpu:
            step()
            return step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    @contextlib.contextmanager
    def no_synchronisation(self) -> Iterator[None]:
        """An error where the host waits for the device."""
        if self.cpu:
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def parameters(device: Device, dtype: torch.dtype) -> Params:
    generator = torch.Generator().manual_seed(0)
    made = [(0.02 * torch.randn(shape, generator=generator)).to(dtype) for shape in device.shapes()]
    params = [torch.nn.Parameter(x.to(device.name)) for x in made]
    for p in params:
        p.grad = torch.zeros_like(p)
    return params


def give(params: Params, seed: int) -> None:
    """New gradients in the same memory, the same for every optimiser."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad.copy_(torch.randn(p.shape, generator=generator).to(p.dtype))


def optimiser(params: Params, options: dict[str, Any], adamw: dict[str, Any], **more: Any) -> Muon:
    matrices, others = params[:-2], params[-2:]
    return Muon([{"params": matrices}, {"params": others, "algorithm": "adamw", **adamw}], **options, **more)


def replays(device: Device, options: dict[str, Any], adamw: dict[str, Any], dtype: torch.dtype) -> dict[str, float]:
    """Four replays against four steps that read values, and against four that do not."""
    start = parameters(device, dtype)
    held, unread, plain = (parameters(device, dtype) for _ in range(3))
    rate = torch.full((), 0.02, device=device.name)
    on_device = not device.cpu  # torch's AdamW has no capturable step on a CPU
    in_graph = optimiser(held, options, adamw, lr=rate, capturable=on_device)
    outside = optimiser(unread, options, adamw, lr=rate, capturable=on_device)
    reading = optimiser(plain, options, adamw, lr=0.02)
    give(held, 0)
    replay = device.replayable(in_graph.step)
    for k in range(5):
        for params in (held, unread, plain):
            give(params, k)
        if k:
            rate.fill_(0.02 / k)
            replay()
        for group in reading.param_groups:
            group["lr"] = 0.02 / max(k, 1)
        with device.no_synchronisation() if k else contextlib.nullcontext():
            outside.step()
        reading.step()
    device.synchronise()
    states_equal = all(
        torch.equal(in_graph.state[p][name], value)
        for p, q in zip(held, unread, strict=True)
        for name, value in outside.state[q].items()
    )
    return {
        "to unread steps": distance(held, unread, start),
        "to steps that read": distance(held, plain, start),
        "states equal": float(states_equal),
    }


def distance(one: Params, two: Params, start: Params) -> float:
    """The largest distance of two parameters over the distance that one of them has moved."""
    with torch.no_grad():
        return max(
            float((p - q).double().norm() / (q - s).double().norm()) for p, q, s in zip(one, two, start, strict=True)
        )


def whole_pass(device: Device) -> dict[str, float]:
    """The largest relative difference of the losses of 20 passes in one graph, with their steps, from those outside."""
    found = []
    for captured in (True, False):
        torch.manual_seed(0)
        n = device.unit
        model = torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.Tanh(), torch.nn.Linear(n, 3)).to(device.name)
        x, y = torch.randn(64, n).to(device.name), torch.randn(64, 3).to(device.name)
        matrices, biases = ([p for p in model.parameters() if p.ndim == axes] for axes in (2, 1))
        rate = torch.full((), 0.01, device=device.name)
        groups = [{"params": matrices}, {"params": biases, "algorithm": "adamw"}]
        muon = Muon(groups, lr=rate, precision="full", capturable=not device.cpu)
        loss = torch.zeros((), device=device.name)

        def learn(model=model, x=x, y=y, muon=muon, loss=loss) -> None:
            muon.zero_grad(set_to_none=False)
            now = (model(x) - y).square().mean()
            loss.copy_(now.detach())
            now.backward()
            muon.step()

        if captured:
            again = device.replayable(learn)
        else:
            learn()
            again = learn
        losses = []
        for k in range(20):
            rate.fill_(0.01 / (1 + k))
            again()
            losses.append(loss.item())
        found.append(torch.tensor(losses))
    return {"losses": float(((found[0] - found[1]) / found[1]).abs().max())}


def refusal(device: Device) -> dict[str, float]:
    """Whether a capture without ``capturable=True`` is refused, and the device works after it."""
    if device.cpu:
        return {"refused": 1.0}
    params = parameters(device, torch.float32)
    muon = optimiser(params, {}, {})
    muon.step()
    refused = False
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            muon.step()
    except RuntimeError as error:
        refused = "without capturable=True" in str(error)
    muon.step()
    torch.cuda.synchronize()
    return {"refused": float(refused)}


def times(device: Device) -> dict[str, float]:
    """Milliseconds of a step: in a graph, outside, and of torch's own Muon."""
    rows: dict[str, float] = {}
    for name, made in (
        ("in a graph", {"capturable": not device.cpu, "lr": torch.full((), 0.01, device=device.name)}),
        ("capturable, outside", {"capturable": not device.cpu, "lr": torch.full((), 0.01, device=device.name)}),
        ("reading", {"lr": 0.01}),
    ):
        params = parameters(device, torch.float32)
        give(params, 1)
        muon = optimiser(params, {}, {}, **made)
        step = device.replayable(muon.step) if name == "in a graph" else muon.step
        rows[name] = milliseconds(step, device)
    if hasattr(torch.optim, "Muon"):
        params = [p for p in parameters(device, torch.float32) if p.ndim == 2]
        give(params, 1)
        rows["torch.optim.Muon, matrices alone"] = milliseconds(torch.optim.Muon(params, lr=0.01).step, device)
    return rows


def milliseconds(step: Callable[[], Any], device: Device, runs: int = 10) -> float:
    found = []
    for _ in range(runs + 2):
        device.synchronise()
        start = time.perf_counter()
        step()
        device.synchronise()
        found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(found[2:])


def attempt(name: str, measure: Callable[[], dict[str, float]], fits: Callable[[dict[str, float]], bool]) -> Any:
    """Run one part, print it, and go on after an error."""
    try:
        row: Any = measure()
        passed = fits(row)
    except Exception:
        row, passed = {"error": traceback.format_exc()}, False
    print(f"{'ok   ' if passed else 'WRONG'} {name}: {row.get('error') or _short(row)}", flush=True)
    return {**row, "passed": passed}


def _short(row: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in row.items())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--cpu", action="store_true", help="the same on the CPU at small sizes, without graphs")
    chosen = options.parse_args()
    if not (chosen.cpu or torch.cuda.is_available()):
        options.error("there is no GPU; --cpu shows that the script works")
    device = Device(chosen.cpu)
    name = "cpu" if chosen.cpu else torch.cuda.get_device_name()
    result: dict[str, Any] = {
        "machine": {"device": name, "torch": torch.__version__, "python": platform.python_version()}
    }
    print(result["machine"], flush=True)
    for way, (given, adamw, dtype, allowed) in WAYS.items():
        if chosen.cpu and adamw.get("foreach"):
            continue  # not with a tensor as the learning rate on a CPU

        def fits(row: dict[str, float], allowed: float = allowed) -> bool:
            near = row["to unread steps"] <= allowed and row["to steps that read"] <= allowed
            return near and bool(row["states equal"])

        result[way] = attempt(
            way, lambda given=given, adamw=adamw, dtype=dtype: replays(device, given, adamw, dtype), fits
        )
    result["pass"] = attempt("a pass with its step", lambda: whole_pass(device), lambda row: row["losses"] < 1e-2)
    result["refusal"] = attempt(
        "no capture without capturable", lambda: refusal(device), lambda row: row["refused"] == 1
    )
    result["milliseconds"] = attempt("milliseconds of a step", lambda: times(device), lambda row: True)
    if chosen.out:
        chosen.out.write_text(json.dumps(result, indent=1))
    wrong = [key for key, row in result.items() if key != "machine" and not row["passed"]]
    if wrong:
        raise SystemExit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
