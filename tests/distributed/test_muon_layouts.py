"""Muon on sharded parameters: for every layout the update of one device, nothing computed twice, two all-to-alls a bucket."""

import pytest

torch = pytest.importorskip("torch")

from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.tensor import DTensor, Replicate, Shard  # noqa: E402
from torch.distributed.tensor.placement_types import _StridedShard  # noqa: E402

from matsign.optim import Muon, sharded_step  # noqa: E402
from processes import run  # noqa: E402

pytestmark = pytest.mark.slow

# Name: shape, options of its group.
SQUARE, TALL, WIDE = ((16, 16), {}), ((24, 10), {}), ((10, 24), {})
UNEVEN, SMALL = ((7, 9), {}), ((3, 5), {})
HEADS = ((24, 12), {"split": 6})
UNEQUAL = ((20, 12), {"split": (12, 4, 4)})
INPUTS = ((12, 24), {"split_inputs": 4})
EXPERTS = ((6, 8, 5), {"batch_axes": 1})
CONVOLUTION = ((8, 6, 3, 3), {})
LAST = ((3, 6, 16), {"batch_axes": 1, "outputs_last": True, "split": (8, 4, 4)})
ALL = [LAST, SQUARE, TALL, WIDE, UNEVEN, SMALL, HEADS, UNEQUAL, INPUTS, EXPERTS, CONVOLUTION, SQUARE, TALL]

# By the shape of the mesh: the placements of every parameter.
LAYOUTS = {
    (2,): [(Shard(0),), (Shard(1),), (Replicate(),)],
    (4,): [(Shard(0),), (Shard(1),)],
    (2, 2): [
        (Replicate(), Shard(0)),
        (Shard(0), Replicate()),
        (Shard(0), Shard(1)),
        (Shard(1), Shard(1)),
        (_StridedShard(0, split_factor=2), Shard(0)),
        (_StridedShard(1, split_factor=2), Shard(1)),
    ],
}


def tensors(cases, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape, _ in cases]


def shard(x, mesh, placements):
    """A DTensor without communication; strided placements are those that torch makes of indices."""
    piece = x
    for count, c, placement in zip(mesh.shape, mesh.get_coordinate(), placements, strict=True):
        if not isinstance(placement, Replicate):
            piece = placement._split_tensor(piece, count, with_padding=False, contiguous=True)[0][c]
    piece = piece.clone()
    return DTensor.from_local(piece, mesh, placements, run_check=False, shape=x.shape, stride=x.stride())


def distance(parameters, wanted, mesh, placements):
    """The largest distance of a shard on this process from that of the wanted parameter."""
    shards = ((p.to_local(), shard(q, mesh, placements).to_local()) for p, q in zip(parameters, wanted, strict=True))
    return max((x - y).abs().max().item() if x.numel() else 0.0 for x, y in shards)


def build(cases, parameters, **options):
    groups = [{"params": [p], **own} for p, (_, own) in zip(parameters, cases, strict=True)]
    return Muon(groups, **{"lr": 0.1, "weight_decay": 0.2, **options})


def one_device(cases, seeds, missing=(), dtype=torch.float32, **options):
    parameters = [torch.nn.Parameter(x) for x in tensors(cases, 0, dtype)]
    optimiser = build(cases, parameters, **options)
    for seed in seeds:
        for k, (p, g) in enumerate(zip(parameters, tensors(cases, seed, dtype), strict=True)):
            p.grad = None if (seed, k) in missing else g
        optimiser.step()
    return [p.detach() for p in parameters]


def sharded(cases, mesh, placements, seeds, missing=(), dtype=torch.float32, **options):
    parameters = [torch.nn.Parameter(shard(x, mesh, placements)) for x in tensors(cases, 0, dtype)]
    optimiser = build(cases, parameters, **options)
    for seed in seeds:
        for k, (p, g) in enumerate(zip(parameters, tensors(cases, seed, dtype), strict=True)):
            p.grad = None if (seed, k) in missing else shard(g, mesh, placements)
        optimiser.step()
    return parameters, optimiser


def distances(shape):
    """For every layout of a mesh, the largest distance of a parameter from one device's after three steps."""
    mesh = init_device_mesh("cpu", shape)
    wanted = one_device(ALL, (1, 2, 3), missing=MISSING)
    found = {}
    for placements in LAYOUTS[shape]:
        parameters, optimiser = sharded(ALL, mesh, placements, (1, 2, 3), missing=MISSING)
        assert all(optimiser.state[p]["momentum_buffer"].placements == placements for p in parameters)
        found[str(placements)] = distance(parameters, wanted, mesh, placements)
    return found


MISSING = {(1, 0), (2, 1), (2, 2), (2, 8), (3, 4), (1, 7), (2, 7), (3, 7)}


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_every_layout_has_the_update_of_one_device(shape):
    for found in run(int(torch.tensor(shape).prod()), distances, shape):
        assert max(found.values()) < 3e-6, found


VARIANTS = {
    "complex": {"dtype": torch.complex64},
    "double": {"dtype": torch.float64, "nesterov": False, "momentum": 0.5},
    "half of the memory": {"momentum_dtype": torch.bfloat16},
    "bfloat16": {"dtype": torch.bfloat16},
    "a rate in a tensor": {"rate": True},
    "accuracy": {"tol": 1e-2, "adjust_lr_fn": "match_rms_adamw"},
    "small buckets": {"owned": 300},
}


def variants():
    """For dtypes, options and small buckets, the largest distance from one device's parameters, over the rounding unit."""
    mesh, placements = init_device_mesh("cpu", (2, 2)), (_StridedShard(0, split_factor=2), Shard(0))
    found = {}
    for name, options in VARIANTS.items():
        options = dict(options)
        sharded_step.OWNED_ON_CPU = options.pop("owned", 2**21)
        if options.pop("rate", False):
            options["lr"] = torch.tensor(0.1)
        wanted = one_device(ALL, (1, 2), **options)
        parameters, optimiser = sharded(ALL, mesh, placements, (1, 2), **options)
        unit = torch.finfo(options.get("dtype", torch.float32)).eps
        found[name] = distance(parameters, wanted, mesh, placements) / unit
        kept = options.get("momentum_dtype", options.get("dtype", torch.float32))
        assert all(optimiser.state[p]["momentum_buffer"].dtype == kept for p in parameters)
        assert all(optimiser.state[p]["momentum_buffer"].placements == placements for p in parameters)
        again, _ = sharded(ALL, mesh, placements, (1, 2), **options)
        assert all(torch.equal(p.to_local(), q.to_local()) for p, q in zip(parameters, again, strict=True))
    channels = torch.nn.Parameter(shard(tensors([CONVOLUTION], 0)[0], mesh, placements))
    channels._local_tensor = channels.to_local().contiguous(memory_format=torch.channels_last)
    assert not channels.to_local().is_contiguous()
    channels.grad = shard(tensors([CONVOLUTION], 1)[0], mesh, placements)
    Muon([channels], lr=0.1, weight_decay=0.2).step()
    found["channels last"] = distance([channels], one_device([CONVOLUTION], (1,)), mesh, placements) / 1e-7
    return found


def test_dtypes_options_and_small_buckets():
    for found in run(4, variants):
        assert all(value < (4 if name == "bfloat16" else 40) for name, value in found.items()), found
