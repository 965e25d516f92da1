"""A step of matsign.optim.Muon on the matrices of a transformer, beside plain Newton-Schulz and torch.optim.Muon.

    python benchmarks/muon.py [OUT.json] [--width 256] [--layers 4] [--shapes] [--losses]

Times are the best of steps taken in turn, and the ratios are to the same optimiser with plain Newton-Schulz in float32, one
parameter at a time, as it is written in many a script. On a GPU, if there is one; its steps end with a synchronisation.
`--shapes` takes 100 matrices of 100 shapes (16, 16 + k) instead. `--losses` trains the transformer of
examples/muon_transformer.py with each, from three seeds, and says what loss they end at.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from pathlib import Path

import torch
from arguments import json_file, parser

from matsign.backends import load
from matsign.optim import Muon

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class PlainMuon(torch.optim.Optimizer):
    """Muon with five Newton-Schulz steps in float32 for one parameter after the other."""

    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            mu, lr = group["momentum"], group["lr"]
            for p in group["params"]:
                m = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)).lerp_(p.grad, 1 - mu)
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(newton_schulz(p.grad.lerp(m, mu)), alpha=-lr * math.sqrt(max(1, p.shape[0] / p.shape[1])))


def newton_schulz(g):
    x = g.mT if g.shape[0] > g.shape[1] else g
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        r = x @ x.mT
        x = torch.addmm(x, torch.addmm(r, r, r, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if g.shape[0] > g.shape[1] else x


OPTIMISERS = {
    "plain float32 Newton-Schulz": PlainMuon,
    "matsign.optim.Muon": Muon,
    "matsign.optim.Muon, Newton-Schulz": lambda params, **options: Muon(params, ns_steps=5, **options),
    'matsign.optim.Muon, "polar_express"': lambda params, **options: Muon(
        params, schedule="polar_express", steps=5, **options
    ),
}
if load("torch").fast_half_dtype(torch.ones(1, device=DEVICE)) is not None:
    OPTIMISERS["matsign.optim.Muon, half precision"] = lambda params, **options: Muon(
        params, precision="half", **options
    )
if hasattr(torch.optim, "Muon"):
    OPTIMISERS["torch.optim.Muon"] = torch.optim.Muon


def transformer(width, layers):
    """Queries, keys, values and outputs, and the two matrices of a perceptron, for every layer."""
    return ([(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]) * layers


MANY_SHAPES = [(16, 16 + k) for k in range(100)]


def matrices(shapes):
    """Parameters with gradients."""
    params = [torch.nn.Parameter(torch.randn(shape, device=DEVICE)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def seconds(f):
    start = time.perf_counter()
    f()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def times(shapes, budget=20.0):
    """Best seconds of a step of each, in turn; torch's takes so long on a CPU that it is measured less often."""
    steps = {name: build(matrices(shapes), lr=1e-3).step for name, build in OPTIMISERS.items()}
    best = {name: min(seconds(step) for _ in range(2)) for name, step in steps.items()}
    start = time.perf_counter()
    while time.perf_counter() - start < budget:
        for name, step in steps.items():
            if best[name] < budget / 20:
                best[name] = min(best[name], seconds(step))
    return best


def spread(width):
    """Smallest and largest singular value of an update, from a Gaussian gradient."""
    found = {}
    for name, build in OPTIMISERS.items():
        torch.manual_seed(0)
        (p,) = (torch.nn.Parameter(torch.zeros(width, width, device=DEVICE)),)
        p.grad = torch.randn(width, width, device=DEVICE)
        build([p], lr=1.0, weight_decay=0.0).step()
        values = torch.linalg.svdvals(p.detach().double())
        found[name] = values.min().item(), values.max().item()
    return found


def losses(names, seeds=(0, 1, 2)):
    """Bits per character at the end of the example, per seed."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    import muon_transformer as example

    size = (example.FULL if DEVICE.type == "cuda" else example.DEFAULT)._replace(seconds=math.inf)
    data, found = example.texts(), {}

    def build(name):
        def both(matrices, rest):
            return [OPTIMISERS[name](matrices, lr=0.02), torch.optim.AdamW(rest, lr=2e-3, weight_decay=0.1)]

        return both

    for name in names:
        runs = [example.learn(build(name), size, data, DEVICE, lambda *_: None, seed) for seed in seeds]
        found[name] = [float(run.loss[-1]) for run in runs]
        print(f"{name:38} bits per character " + "  ".join(f"{x:.4f}" for x in found[name]), flush=True)
    return found


def main():
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--width", type=int, default=256, help="of the model (default 256)")
    options.add_argument("--layers", type=int, default=4, help="of the model (default 4)")
    options.add_argument("--shapes", action="store_true", help="100 shapes instead of the model's")
    options.add_argument("--losses", action="store_true", help="train, too")
    chosen = options.parse_args()
    machine = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(machine)
    shapes = MANY_SHAPES if chosen.shapes else transformer(chosen.width, chosen.layers)
    best, values = times(shapes), spread(chosen.width)
    plain = best["plain float32 Newton-Schulz"]
    for name, took in best.items():
        low, high = values[name]
        print(
            f"{name:38} {1e3 * took:9.2f} ms   {plain / took:7.3f} times as fast   singular values {low:.3f} to {high:.3f}"
        )
    result = {"machine": machine, "shapes": shapes, "width": chosen.width, "seconds": best, "singular": values}
    if chosen.losses:
        # Where bfloat16 is emulated torch's would take hours.
        result["losses"] = losses([name for name, took in best.items() if took < 10 * plain])
    if chosen.out:
        chosen.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
