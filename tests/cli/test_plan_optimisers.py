"""`matsign plan` of optimisers: models by file and by size, owners, bytes against the collectives of a step, memory."""

import json
import math
import struct

import pytest
from typer.testing import CliRunner

from matsign.cli.app import app
from matsign.planning import plan_optimiser
from matsign.planning.models import OTHERS, read_shapes, split_by_name, transformer

SMALL = ("--layers", 24, "--width", 512, "--heads", 8, "--mlp", 1024, "--vocab", 1000)
LLAMA = ("--layers", 80, "--width", 8192, "--heads", 64, "--kv-heads", 8, "--mlp", 28672, "--vocab", 128256)


def run(*arguments):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def planned(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_sizes_of_a_transformer():
    shapes = transformer(80, 8192, 64, 28672, 128256, 8)
    assert sum(map(math.prod, shapes.values())) == 70_553_706_496  # that of Llama 3 70B
    matrices, others = split_by_name(shapes, OTHERS)
    assert len(matrices) == 80 * 7
    assert {name.split(".")[0] for name in others} == {"embed", "lm_head", "norm", "layers"}
    assert "lm_head.weight" not in transformer(2, 8, 2, 16, 32, tied=True)


def test_shapes_from_files(tmp_path):
    shapes = {"a.weight": (6, 4), "a.bias": (6,), "experts": (3, 6, 4)}
    path = tmp_path / "model.json"
    path.write_text(json.dumps(shapes))
    assert read_shapes(path) == shapes
    header = json.dumps(
        {"__metadata__": {"format": "pt"}}
        | {name: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for name, s in shapes.items()}
    ).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert read_shapes(path) == shapes


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.json", b"{", "not readable"),
        ("a.json", b"[1]", "no table"),
        ("a.json", b"{}", "a model is a table"),
        ("a.json", b'{"w": [3, -1]}', "shape of w"),
        ("a.json", b'{"w": [3, 1.5]}', "shape of w"),
        ("a.json", b'{"w": "3x4"}', "shape of w"),
        ("a.json", b"\xff\xfe", "not readable"),
        ("a.safetensors", b"", "not readable"),
        ("a.safetensors", struct.pack("<Q", 10**15) + b"{}", "not readable"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, content, text):
    path = tmp_path / name
    path.write_bytes(content)
    done = run("Muon", "--model", path)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("muon", *SMALL), "did you mean Muon?"),
        (("Muon",), "missing --layers"),
        (("Muon", "--layers", 3), "missing --width"),
        (("Muon", "30x40"), "no sizes of arrays"),
        (("Muon", *SMALL, "--model", "a.json"), "not both"),
        (("Muon", "--model", "none.json"), "none.json"),
        (("Muon", *SMALL, "--layers", -1), "positive whole number"),
        (("Muon", *SMALL, "--layers", 10**9), "layers must be at most"),
        (("Muon", *SMALL, "--mesh", 10**8), "at most 16384 devices"),
        (("Muon", *SMALL, "--heads", 7), "not a multiple of heads"),
        (("Muon", *SMALL, "--kv-heads", 3), "not a multiple of kv-heads"),
        (("Muon", *SMALL, "--shard", "diagonals"), "must be one of matrices, rows"),
        (("Muon", *SMALL, "--mesh", "dp=2", "--shard", "tp=rows"), "no axis tp"),
        (("Muon", *SMALL, "--mesh", "dp=2", "--shard", "dp=rows,dp=columns"), "occurs twice"),
        (("Muon", *SMALL, "--set", "step=3"), "did you mean steps?"),
        (("Muon", *SMALL, "--set", "shapes=3"), "not an option"),
        (("Muon", *SMALL, "--set", "momentum_dtype=[1]"), "momentum_dtype must be one of"),
        (("Muon", *SMALL, "--set", "mesh=3"), "this is --mesh"),
        (("Muon", *SMALL, "--set", "steps=3", "--set", "tol=0.1", "--set", "schedule=muon"), "give one of"),
        (("Muon", *SMALL, "--batch-axes", -1), "batch_axes"),
        (("Muon", *SMALL, "--adamw", "("), "regular expression"),
        (("Muon", *SMALL, "--adamw", "."), "go to AdamW"),
        (("Muon", *SMALL, "--dtype", "complex64"), "dtype must be one of"),
        (("Muon", *SMALL, "--mesh", 0), "positive sizes"),
        (("mcsgn", "3x3", "--layers", 3), "mcsgn has no model"),
    ],
)
def test_nonsense_is_refused_in_one_line(arguments, text):
    if "16384" in text:
        pytest.importorskip("torch")
    done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr


@pytest.mark.slow
def test_muon_on_one_device():
    pytest.importorskip("torch")
    plan = planned("Muon", *SMALL, "--dtype", "float32")
    assert plan["way"] == "one device"
    assert plan["bytes_moved"] == 0
    numbers = sum(map(math.prod, transformer(24, 512, 8, 1024, 1000).values()))
    assert plan["memory"]["parameters"] == plan["memory"]["gradients"] == 4 * numbers


@pytest.mark.slow
def test_muon_by_owners():
    """24 layers over 4 devices: two all-to-alls a bucket, each device a quarter of the work."""
    pytest.importorskip("torch")
    plan = planned("Muon", *SMALL, "--dtype", "float32", "--mesh", 4)
    alone = planned("Muon", *SMALL, "--dtype", "float32")
    assert plan["way"] == "owners by all-to-all"
    assert plan["busiest"] < 1.15
    assert plan["products"] == alone["products"]
    assert plan["flops"] == alone["flops"]
    (exchange,) = plan["collectives"]
    assert exchange["kind"] == "all-to-all"
    matrices, _ = split_by_name(transformer(24, 512, 8, 1024, 1000))
    numbers = sum(map(math.prod, matrices.values()))
    # Three quarters of all matrices go to another device, and back.
    assert plan["bytes_moved"] == pytest.approx(2 * 4 * numbers / 4 * 3 / 4, rel=0.01)


@pytest.mark.slow
def test_whole_matrices_stay():
    """Experts of which each device holds some need no communication; a matrix beside them, of which each holds all, does."""
    pytest.importorskip("torch")
    shapes = {"experts": (8, 64, 32)}
    plan = plan_optimiser(shapes, mesh=4, batch_axes=1, shard="matrices", dtype="float32")
    assert str(plan.way) == "local batch"
    assert plan.bytes_moved == 0
    assert plan.memory["parameters"] == 4 * 2 * 64 * 32
    plan = plan_optimiser(shapes | {"other": (64, 32)}, mesh=4, batch_axes=1, shard="matrices", dtype="float32")
    assert str(plan.way) == "owners by all-to-all"
    assert plan.memory["parameters"] == 4 * 3 * 64 * 32


@pytest.mark.slow
def test_shards_are_equal_in_jax():
    """Where the mesh does not divide an axis, each device holds all of it."""
    pytest.importorskip("jax")
    plan = plan_optimiser({"w": (64, 32), "v": (66, 32)}, "scale_by_msign", mesh=3, dtype="float32")
    assert plan.memory["parameters"] == 4 * (64 * 32 + 22 * 32)
    assert any(note.startswith("1 array not sharded") for note in plan.notes)


@pytest.mark.slow
def test_seventy_billion_parameters_on_512_devices():
    pytest.importorskip("torch")
    plan = planned("Muon", *LLAMA, "--mesh", "dp=64,tp=8", "--shard", "dp=rows,tp=columns", "--memory", "80GB")
    assert plan["fits"]
    assert plan["devices"] == 512
    assert plan["memory"]["parameters"] == pytest.approx(2 * 70.55e9 / 512, rel=0.01)
    assert plan["flops"][0] == pytest.approx(80 * 119e12, rel=0.01)
    assert planned("Muon", *LLAMA, "--mesh", 2, "--memory", "80GB")["way"] == "does not fit"
    # No device repeats large products: a matrix whose sides differ little has one owner, on a flat mesh too.
    assert planned("Muon", *LLAMA, "--mesh", 512, "--memory", "80GB")["busiest"] < 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "sides"), [({"dp": 8}, (0,)), ({"dp": 4, "tp": 2}, (0, 1)), ({"replicas": 2, "dp": 4}, (None, 0))]
)
def test_bytes_are_those_that_a_step_sends(monkeypatch, mesh, sides):
    """A step of one of eight processes, whose all-to-alls are counted and not carried out: every byte, also of uneven shards."""
    torch = pytest.importorskip("torch")
    from torch import distributed
    from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from matsign.optim import Muon, forecast
    from matsign.optim.batching import Layout, msign_config
    from matsign.optim.owners import OWNED_ON_CPU

    shapes = [(96, 40)] * 5 + [(40, 96)] * 3 + [(33, 64)] * 4 + [(300, 200)] * 10
    found = forecast.forecast(
        forecast.items_of(shapes, [Layout()] * len(shapes), mesh, sides, msign_config(), "float32"), OWNED_ON_CPU
    )
    placements = [Replicate() if side is None else Shard(side) for side in sides]
    for rank in (0, 5):
        sent = []
        distributed.init_process_group("fake", rank=rank, world_size=8, store=FakeStore())
        try:
            devices = init_device_mesh("cpu", tuple(mesh.values()), mesh_dim_names=tuple(mesh))

            def sharded(shape, devices=devices):
                local, _ = compute_local_shape_and_global_offset(shape, devices, placements)
                return DTensor.from_local(
                    torch.ones(local),
                    devices,
                    placements,
                    run_check=False,
                    shape=torch.Size(shape),
                    stride=(shape[1], 1),
                )

            parameters = [torch.nn.Parameter(sharded(shape)) for shape in shapes]
            for p, shape in zip(parameters, shapes, strict=True):
                p.grad = sharded(shape)
            real = distributed.all_to_all_single

            def counted(output, given, to, of, rank=rank, sent=sent, real=real, **options):
                sent.append(sum(of) - of[rank])
                output.zero_()
                return real(output, given, to, of, **options)

            monkeypatch.setattr(distributed, "all_to_all_single", counted)
            Muon(parameters).step()
            monkeypatch.undo()
        finally:
            distributed.destroy_process_group()
        assert len(sent) == 2 * found.moving
        assert sum(sent) == 4 * found.sent[rank]
