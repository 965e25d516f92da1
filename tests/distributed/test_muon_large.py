"""Muon on matrices that are too large for one owner, and the memory of buckets."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.tensor import Shard, distribute_tensor  # noqa: E402

from matsign.optim import Muon, exchange, sharded_step  # noqa: E402
from processes import run  # noqa: E402


def large():
    """Distances from one device, and the work of this process, with a few matrices of which some stay sharded."""
    mesh = init_device_mesh("cpu", (4,))
    cases = [((4097, 64), 0, {}), ((64, 4097), 1, {}), ((2, 84, 2600), 2, {"batch_axes": 1}), ((30, 20), 0, {})]
    cases += [((4097, 64), 0, {}), ((1, 2600, 84), 1, {"batch_axes": 1, "outputs_last": True})]
    ones, shards, groups, others = [], [], [], []
    for k, (shape, axis, options) in enumerate(cases):
        generator = torch.Generator().manual_seed(k)
        start, gradient = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        ones.append(nn.Parameter(start.clone()))
        shards.append(nn.Parameter(distribute_tensor(start, mesh, [Shard(axis)], src_data_rank=None)))
        ones[-1].grad, shards[-1].grad = gradient, distribute_tensor(gradient, mesh, [Shard(axis)], src_data_rank=None)
        groups.append({"params": [shards[-1]], **options})
        others.append({"params": [ones[-1]], **options})
    Muon(others, lr=0.5).step()
    optimiser = Muon(groups, lr=0.5)
    optimiser.step()
    ((exchanges, sharded),) = optimiser._sharded._plans.values()
    distance = max(
        (p.to_local() - distribute_tensor(q.detach(), mesh, p.placements, src_data_rank=None).to_local())
        .abs()
        .max()
        .item()
        for p, q in zip(shards, ones, strict=True)
    )
    return distance, [x.items for x in sharded], [x.bucket.items for x in exchanges]


@pytest.mark.slow
def test_large_matrices_stay_sharded():
    for distance, sharded, moved in run(4, large):
        assert distance < 1e-5
        assert (sorted(sharded), moved) == ([(0, 4), (1,), (2,), (5,)], [(3,)])


def peak_of(act):
    """The most bytes that are allocated at once, beyond those at the start."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        act()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    total = most = 0
    for _, change in changes:
        total += change
        most = max(most, total)
    return most


def memory():
    """Bytes that a step takes, and bytes that this process owns of the largest bucket."""
    sharded_step.OWNED_ON_CPU = 16 * 160**2
    mesh = init_device_mesh("cpu", (4,))
    parameters = [nn.Parameter(distribute_tensor(torch.randn(160, 160), mesh, [Shard(0)])) for _ in range(160)]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimiser = Muon(parameters)
    optimiser.step()
    # A thread of gloo may hold a buffer for a moment after its all-to-all has ended.
    peak = min(peak_of(optimiser.step) for _ in range(3))
    ((exchanges, _),) = optimiser._sharded._plans.values()
    owned = [sum(piece.part.size for piece in x.route.incoming) for x in exchanges]
    return peak, 4 * max(owned), len(owned)


@pytest.mark.slow
def test_memory_of_buckets():
    for peak, owned, buckets in run(4, memory):
        assert (owned, buckets) == (4 * 16 * 160**2, 3)
        assert peak <= 3 * owned, peak / owned


class Recorded:
    """A bucket that records what happens to it."""

    def __init__(self, name, chunks, log):
        self.name, self.count, self.log = name, chunks, log

    def receive(self):
        self.log.append(f"receive {self.name}")

    def chunks(self):
        return [[k] for k in range(self.count)]

    def orthogonalise(self, chunk):
        self.log.append(f"compute {self.name}{chunk[0]}")

    def send_back(self):
        self.log.append(f"back {self.name}")


def order(counts):
    """What happens to buckets of so many chunks, in this order."""
    log = []
    buckets = [Recorded(name, count, log) for name, count in zip("abc", counts, strict=True)]
    exchange.move_buckets(buckets, lambda b: log.append(f"send {b.name}"), lambda b: log.append(f"finish {b.name}"))
    return log


def test_the_next_and_the_last_bucket_move_while_one_is_computed():
    even, uneven = order((2, 4, 2)), order((1, 0, 3))
    middle = ["receive b", "compute b0", "compute b1", "finish a", "send c", "compute b2", "compute b3", "back b"]
    assert " ".join(middle) in " ".join(even)
    # The same order of all-to-alls on a process that owns nothing of a bucket.
    for log in (even, uneven):
        moves = [step for step in log if step[:4] in ("send", "back")]
        assert moves == ["send a", "send b", "back a", "send c", "back b", "back c"]
