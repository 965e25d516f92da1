"""A step of matsign.optim.Muon on parameters that are sharded over processes of this machine, beside one process.

    python benchmarks/muon_distributed.py [OUT.json] [--width 512] [--layers 24] [--processes 4] [--rounds 3] [--losses]

The matrices of a transformer are sharded by rows, as FSDP2 shards them, over processes with one thread each. The time of their
step is beside that of one process with two threads that holds the whole matrices; both in turn. Also printed: the collectives
of a step, the work of the busiest process over the mean, and the memory of a step over what a process owns of the largest
bucket. `--losses` trains the transformer of examples/muon_transformer.py in a small size for 200 steps instead, with its batches
divided over FSDP2 on 2 and on 4 processes, and tensor parallel on 2 below FSDP2 on 2, and prints the largest distance of the
losses from those of one device; also with undivided batches, and for one device with each batch in two parts, which shows what
the rounding of gradients alone does.
"""

from __future__ import annotations

import collections
import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from arguments import json_file, parser
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from matsign.optim import Muon
from matsign.optim.owners import plan_owners

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

STEPS = 200


class Processes:
    """Processes that are connected by gloo, and compute a function together."""

    def __init__(self, count, threads):
        self.count, self.folder = count, tempfile.TemporaryDirectory()
        self.pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
        self.run(join, count, threads, f"file://{self.folder.name}/store")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown()
        self.folder.cleanup()

    def run(self, function, *args):
        """The results by rank. Every process takes one call, since each call waits for the others."""
        return [f.result() for f in [self.pool.submit(call, k, function, *args) for k in range(self.count)]]


def call(k, function, *args):
    return function(k, *args) if function is join else together(function, *args)


def together(function, *args):
    distributed.barrier()
    result = function(*args)
    distributed.barrier()
    return result


def join(rank, count, threads, store):
    torch.set_num_threads(threads)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    distributed.barrier()


def transformer(width, layers):
    """Queries, keys, values and outputs, and the two matrices of a perceptron, for every layer."""
    return ([(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]) * layers


def optimiser_of(shapes):
    """The optimiser of matrices with gradients: sharded by rows, or whole in a single process. It is kept for later calls."""
    if shapes not in KEPT:
        torch.manual_seed(0)
        mesh = init_device_mesh("cpu", (distributed.get_world_size(),))

        def make():
            x = torch.randn(shapes[len(params)])
            return x if len(mesh.mesh) == 1 else distribute_tensor(x, mesh, [Shard(0)], src_data_rank=None)

        params = []
        while len(params) < len(shapes):
            p = nn.Parameter(make())
            p.grad = make()
            params.append(p)
        KEPT[shapes] = Muon(params)
        KEPT[shapes].step()
    return KEPT[shapes]


KEPT = {}


def seconds(shapes):
    optimiser = optimiser_of(shapes)
    distributed.barrier()
    start = time.perf_counter()
    optimiser.step()
    distributed.barrier()
    return time.perf_counter() - start


def figures(shapes):
    """Collectives of a step; bytes at its peak, and bytes of the largest bucket that this process owns; work by rank."""
    optimiser, calls = optimiser_of(shapes), collections.Counter()
    before = {
        name: getattr(distributed, name) for name in ("all_reduce", "all_to_all_single", "all_gather_into_tensor")
    }
    for name, f in before.items():
        setattr(distributed, name, lambda *a, f=f, name=name, **options: calls.update([name]) or f(*a, **options))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        optimiser.step()
    for name, f in before.items():
        setattr(distributed, name, f)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    ((exchanges, _),) = optimiser._sharded._plans.values()
    owned = [4 * sum(piece.part.size for piece in exchange.route.incoming) for exchange in exchanges]
    work = plan_owners(exchanges[0].items, 2**30).work
    return dict(calls), len(exchanges), peak, max(owned), list(work.values())


def losses(size, shape, dtype, parts=1, divided=True):
    """The losses of the example, its matrices under Muon and the rest under AdamW, on a mesh: (), (dp,) or (dp, tp)."""
    import muon_transformer as example

    torch.manual_seed(0)
    model = example.Transformer(size).to(dtype)
    if shape:
        shard(model, init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp")[: len(shape)]))
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = {"params": [p for p in model.parameters() if id(p) not in chosen], "lr": 2e-3, "algorithm": "adamw"}
    optimiser = Muon([{"params": matrices, "lr": 0.02}, rest])
    warm, last = size.steps // 20 + 1, size.steps // 2  # the rates of the example
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: min((k + 1) / warm, 1, (size.steps - k) / last))
    batches, found = example.windows(example.texts()[0], size, 1), []
    for _ in range(size.steps):
        batch = next(batches)
        if shape and divided:  # every process of data parallelism has its part of the batch
            batch = batch.chunk(shape[0])[distributed.get_rank() // (shape[1] if len(shape) > 1 else 1)]
        optimiser.zero_grad()
        mean = torch.zeros((), dtype=dtype)
        for part in batch.chunk(parts):
            loss = example.bits(model, part) / parts
            loss.backward()
            mean += loss.detach()
        optimiser.step()
        rates.step()
        if shape:
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        found.append(mean.item())
    return found


def shard(model, mesh):
    data = mesh["dp"] if mesh.ndim > 1 else mesh
    for block in model.blocks:
        if mesh.ndim > 1:
            block.heads //= mesh["tp"].size()
            by_rows = {name: ColwiseParallel() for name in ("query", "key", "value", "up")}
            parallelize_module(block, mesh["tp"], {**by_rows, "out": RowwiseParallel(), "down": RowwiseParallel()})
        fully_shard(block, mesh=data)
    fully_shard(model, mesh=data)


def compare_losses():
    import muon_transformer as example

    size, distances = example.QUICK._replace(steps=STEPS), {}
    for dtype in (torch.float64, torch.float32):
        wanted = losses(size, (), dtype)
        runs = {"one device, two parts": losses(size, (), dtype, 2)}
        for name, shape in {"FSDP2 x 2": (2,), "FSDP2 x 4": (4,), "TP 2 x FSDP2 x 2": (2, 2)}.items():
            with Processes(2 if shape == (2,) else 4, 1) as processes:
                runs[name] = processes.run(losses, size, shape, dtype)[0]
                if len(shape) == 1:
                    runs[f"{name}, undivided"] = processes.run(losses, size, shape, dtype, 1, False)[0]
        for name, found in runs.items():
            distance = max(abs(x - y) for x, y in zip(found, wanted, strict=True))
            distances[f"{name}, {dtype}"] = distance
            print(f"{dtype} {name:23} largest distance of {STEPS} losses {distance:.1e}; the last {found[-1]:.4f} bits")
    return {"distances": distances}


def compare_times(shapes, count, rounds):
    best = {"one process": float("inf"), "sharded": float("inf")}
    with Processes(1, 2) as one, Processes(count, 1) as several:
        for _ in range(rounds):
            best["one process"] = min(best["one process"], *one.run(seconds, shapes))
            best["sharded"] = min(best["sharded"], max(several.run(seconds, shapes)))
        by_rank = several.run(figures, shapes)
    ratio = best["sharded"] / best["one process"]
    print(
        f"one process, two threads {best['one process']:.3f} s; {count} processes {best['sharded']:.3f} s: {ratio:.2f}"
    )
    calls, buckets, *_, work = by_rank[0]
    unequal, memory = max(work) * count / sum(work), max(peak / owned for _, _, peak, owned, _ in by_rank)
    print(f"{buckets} buckets, collectives {calls}; busiest process {unequal:.3f} of the mean")
    print(f"memory of a step beside shards: {memory:.2f} of what a process owns of the largest bucket")
    return {"seconds": best, "ratio": ratio, "buckets": buckets, "calls": calls, "busiest": unequal, "memory": memory}


def main():
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--width", type=int, default=512, help="of the model (default 512)")
    options.add_argument("--layers", type=int, default=24, help="of the model (default 24)")
    options.add_argument("--processes", type=int, default=4, help="that the matrices are sharded over (default 4)")
    options.add_argument("--rounds", type=int, default=3, help="steps of which the best counts (default 3)")
    options.add_argument("--losses", action="store_true", help="compare losses instead")
    chosen = options.parse_args()
    if chosen.losses:
        result = compare_losses()
    else:
        result = compare_times(tuple(transformer(chosen.width, chosen.layers)), chosen.processes, chosen.rounds)
    if chosen.out:
        chosen.out.write_text(json.dumps({"torch": torch.__version__, **result}, indent=1))


if __name__ == "__main__":
    main()
