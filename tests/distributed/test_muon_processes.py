"""Muon's processes: they disagree, one ends, NaN in one matrix, what is communicated, and what a checkpoint holds."""

import datetime
import os
import time

import pytest

torch = pytest.importorskip("torch")

from torch import distributed, nn  # noqa: E402
from torch.distributed import checkpoint  # noqa: E402
from torch.distributed.checkpoint.state_dict import (  # noqa: E402
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor  # noqa: E402
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module  # noqa: E402

from matsign.optim import Muon, agreement, exchange  # noqa: E402
from processes import outcomes, run  # noqa: E402

pytestmark = pytest.mark.slow


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Model(nn.Module):
    """Two layers, and a matrix that is trained only on even steps."""

    def __init__(self, width=10):
        super().__init__()
        self.layers = nn.ModuleList([Layer(width), Layer(width)])
        self.side = nn.Linear(width, 7, bias=False)
        self.frozen = nn.Linear(width, 5, bias=False).requires_grad_(False)

    def forward(self, x, step):
        for layer in self.layers:
            x = layer(x)
        loss = x.square().mean() + self.frozen(x).mean()
        return loss + self.side(x).square().mean() if step % 2 == 0 else loss


PLAN = {"layers.0": (ColwiseParallel, RowwiseParallel), "layers.1": (ColwiseParallel, RowwiseParallel)}


def made(shape, names=None):
    """The model on a mesh: FSDP2, HSDP, or tensor parallel below FSDP2."""
    torch.manual_seed(0)
    model = Model()
    if shape is None:
        return model
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    if "tp" in (names or ()):
        for layer in model.layers:
            parallelize_module(layer, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        mesh = mesh["dp"]
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def optimiser_of(model):
    matrices = [(n, p) for n, p in model.named_parameters() if p.ndim == 2]
    rest = [(n, p) for n, p in model.named_parameters() if p.ndim != 2]
    return Muon([{"params": matrices, "lr": 0.02}, {"params": rest, "lr": 1e-3, "algorithm": "adamw"}])


def train(model, optimiser, steps):
    losses = []
    for step in steps:
        x = torch.randn(6, 10, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss = model(x, step)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def trained(shape, names=None):
    model = made(shape, names)
    return train(model, optimiser_of(model), range(6))


def saved_and_continued(folder, shape, names=None):
    model = made(shape, names)
    optimiser = optimiser_of(model)
    train(model, optimiser, range(3))
    state = {"model": get_model_state_dict(model), "optimiser": get_optimizer_state_dict(model, optimiser)}
    checkpoint.save(state, checkpoint_id=folder)
    return train(model, optimiser, range(3, 6)), list(state["optimiser"]["state"])


def resumed(folder, shape, again=None, names=None):
    model = made(shape, names)
    optimiser = optimiser_of(model)
    state = {"model": get_model_state_dict(model), "optimiser": get_optimizer_state_dict(model, optimiser)}
    checkpoint.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimiser, state["optimiser"])
    if again is not None:
        state = {"model": get_model_state_dict(model), "optimiser": get_optimizer_state_dict(model, optimiser)}
        checkpoint.save(state, checkpoint_id=again)
    return train(model, optimiser, range(3, 6))


FOUR = {"fsdp": ((4,),), "hsdp": ((2, 2), ("replicate", "shard")), "tensor parallel": ((2, 2), ("dp", "tp"))}


def of_two(folder):
    return {
        "trained": trained((2,)),
        "saved": saved_and_continued(f"{folder}/two", (2,)),
        "resumed": resumed(f"{folder}/two", (2,)),
    }


def of_four(folder):
    both = f"{folder}/tensor parallel", FOUR["tensor parallel"]
    return {
        "trained": {name: trained(*mesh) for name, mesh in FOUR.items()},
        "resumed": resumed(f"{folder}/two", (4,), f"{folder}/four"),
        "saved": saved_and_continued(both[0], *both[1]),
        "resumed on its mesh": resumed(both[0], both[1][0], None, both[1][1]),
    }


def of_two_again(folder):
    return resumed(f"{folder}/four", (2,)), resumed(f"{folder}/tensor parallel", (2,))


def test_learning_and_checkpoints(tmp_path):
    """Two processes, four, and two again, each with the checkpoints of those before, are started once for all checks."""
    folder = str(tmp_path)
    two, four, two_again = run(2, of_two, folder), run(4, of_four, folder), run(2, of_two_again, folder)
    assert_learns_as_on_one_device(two, four)
    assert_resumes_at_another_number_of_processes(two, four, two_again)
    assert_resumes_on_another_mesh(four, two_again)


def assert_learns_as_on_one_device(two, four):
    wanted = pytest.approx(trained(None), abs=1e-5)
    assert [found["trained"] for found in two] == [wanted] * 2
    for name in FOUR:
        assert [found["trained"][name] for found in four] == [wanted] * 4, name


def assert_resumes_at_another_number_of_processes(two, four, two_again):
    (losses, keys), (_, other_keys) = (found["saved"] for found in two)
    assert keys == other_keys
    assert {"side.weight", "layers.0.up.weight", "layers.0.norm.weight"} <= set(keys)
    assert [found["resumed"] for found in two] == [losses] * 2  # bit for bit
    assert [found["resumed"] for found in four] == [pytest.approx(losses, abs=1e-6)] * 4
    assert [again for again, _ in two_again] == [losses] * 2


def assert_resumes_on_another_mesh(four, two_again):
    losses, _ = four[0]["saved"]
    assert two_again[0][1] == pytest.approx(losses, abs=1e-5)
    assert four[0]["resumed on its mesh"] == losses


BY_ROWS = (Shard(0),)


def dtensors(mesh, *shapes, placements=BY_ROWS, seed=0):
    torch.manual_seed(seed)
    return [
        nn.Parameter(distribute_tensor(torch.randn(shape), mesh, placements, src_data_rank=None)) for shape in shapes
    ]


def give(parameters):
    for p in parameters:
        p.grad = distribute_tensor(torch.randn(p.shape), p.device_mesh, p.placements, src_data_rank=None)


def error_of(act):
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def disagreeing():
    """The errors of steps that the processes disagree about; nothing has changed after each."""
    rank, mesh = distributed.get_rank(), init_device_mesh("cpu", (2,))
    column = init_device_mesh("cpu", (2, 1))
    said = {}

    def attempt(name, parameters, change=lambda p: None, **options):
        torch.manual_seed(1)
        give(parameters)
        change(parameters)
        optimiser = Muon([(f"w{k}", p) for k, p in enumerate(parameters)], **options)
        before = [p.to_local().clone() for p in parameters]
        said[name] = error_of(optimiser.step)
        assert not optimiser.state or said[name] == "no error"
        assert all(torch.equal(x, p.to_local()) for x, p in zip(before, parameters, strict=True))

    def on_rank_1(f):
        return lambda parameters: f(parameters) if rank == 1 else None

    def without_gradient(parameters):
        parameters[1].grad = None

    attempt("shapes", dtensors(mesh, (6, 4), (6, 4 + 2 * rank)))
    attempt("more", dtensors(mesh, *[(6, 4)] * (2 + rank)))
    attempt("gradients", dtensors(mesh, (6, 4), (6, 4)), on_rank_1(without_gradient))
    attempt("options", dtensors(mesh, (6, 4), (6, 4)), split=1 + rank)
    attempt("rates", dtensors(mesh, (6, 4), (6, 4)), lr=0.1 + rank)
    attempt("rates in tensors", dtensors(mesh, (6, 4)), lr=torch.tensor(0.1 + rank))
    attempt("momenta", dtensors(mesh, (6, 4)), momentum=[0.9, 0.5][rank])
    attempt("algorithms", dtensors(mesh, (6, 4)), algorithm=["muon", "adamw"][rank])
    attempt("gradients of AdamW", dtensors(mesh, (6,), (6,)), on_rank_1(without_gradient), algorithm="adamw")
    attempt("placements", dtensors(mesh, (6, 4), placements=(Shard(rank),)))
    attempt("meshes", dtensors([mesh, column][rank], (6, 4), placements=[(Shard(0),), (Shard(0), Replicate())][rank]))

    def elsewhere(parameters):
        parameters[0].grad._local_tensor, parameters[0].grad._spec = torch.ones(6, 4), whole._spec

    whole = distribute_tensor(torch.ones(6, 4), mesh, [Replicate()], src_data_rank=None)
    attempt("gradient elsewhere", dtensors(mesh, (6, 4)), on_rank_1(elsewhere))
    (p,) = dtensors(mesh, (6, 4))
    give([p])
    loaded = Muon([("w0", p)])
    loaded.step()
    loaded.state[p]["momentum_buffer"] = loaded.state[p]["momentum_buffer"].to([torch.float32, torch.float64][rank])
    said["dtypes of momenta"] = error_of(loaded.step)
    plain = Muon([("w0", torch.nn.Parameter(torch.ones(6, 4)))])
    plain.param_groups[0]["params"][0].grad = torch.ones(6, 4)
    plain.step()
    said["plain state"] = error_of(lambda: Muon([("w0", p)]).load_state_dict(plain.state_dict()))
    said["on a manifold"] = error_of(lambda: Muon([("w0", p)], manifold="stiefel"))
    loaded.param_groups[0]["manifold"] = [None, "stiefel"][rank]
    before = p.to_local().clone()
    said["on a manifold later"] = error_of(loaded.step)
    assert torch.equal(before, p.to_local())
    partial = nn.Parameter(DTensor.from_local(torch.ones(6, 4), mesh, [Partial()]))
    said["partial"] = error_of(lambda: Muon([("w0", partial)]))
    return said


def test_processes_that_disagree_get_the_same_error():
    first, second = run(2, disagreeing)
    assert first == second
    for name, words in {
        "shapes": ["w1 ", "(6, 4)", "(6, 6)", "rank 0", "rank 1"],
        "more": ["w2", "no parameter on rank 0"],
        "gradients": ["w1", "no gradient", "a gradient"],
        "options": ["w0", "split=1", "split=2"],
        "rates": ["w0", "lr=0.1", "lr=1.1"],
        "rates in tensors": ["w0", "lr=0.1", "lr=1.1"],
        "momenta": ["w0", "momentum=0.9", "momentum=0.5"],
        "algorithms": ["w0", "muon", "adamw"],
        "gradients of AdamW": ["w1", "no gradient", "a gradient"],
        "dtypes of momenta": ["w0", "float32", "float64"],
        "placements": ["w0", "Shard(dim=0)", "Shard(dim=1)"],
        "meshes": ["w0", "mesh of shape (2, 1)"],
        "gradient elsewhere": ["w0", "Shard(dim=0)", "Replicate()", "on rank 1"],
        "partial": ["w0", "Partial(sum)"],
        "on a manifold": ["w0", "is sharded, and a manifold is for parameters that are whole on their device"],
        "on a manifold later": ["w0", "is sharded, and a manifold is for parameters that are whole on their device"],
        "plain state": ["w0", "is a plain tensor", "set_optimizer_state_dict"],
    }.items():
        assert first[name] != "no error", name
        assert all(word in first[name].replace("'", "") for word in words), (name, first[name])


def disagreeing_on_one_of_several_meshes():
    """The error of a step if one rank has no gradient for a parameter that it shares with some of the others."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "columns"))
    said = []
    for rank in range(4):
        for axis in ("rows", "columns"):
            parameters = [*dtensors(mesh[axis], (6, 4)), *dtensors(mesh, (6, 4), placements=(Shard(0), Replicate()))]
            before = [p.to_local().clone() for p in parameters]
            give(parameters)
            if distributed.get_rank() == rank:
                parameters[0].grad = None
            said.append(error_of(Muon(list(zip((axis, "both"), parameters, strict=True))).step))
            assert all(torch.equal(x, p.to_local()) for x, p in zip(before, parameters, strict=True))
    return said


def test_an_error_on_one_of_several_meshes_is_raised_on_all():
    first, *others = run(4, disagreeing_on_one_of_several_meshes)
    assert all(other == first for other in others)
    for k, error in enumerate(first):
        assert f"parameter '{('rows', 'columns')[k % 2]}'" in error
        assert "no gradient" in error


def until_one_dies(folder):
    """Steps with a checkpoint after the second; rank 1 ends in the third."""
    agreement.PATIENCE = datetime.timedelta(seconds=3)
    mesh = init_device_mesh("cpu", (4,))
    parameters = dtensors(mesh, (9, 6), (6, 9), (8, 8))
    optimiser = Muon(parameters, lr=0.1)
    for step in range(3):
        torch.manual_seed(step)
        give(parameters)
        if step == 2:
            state = {"w": parameters, "momenta": [optimiser.state[p]["momentum_buffer"] for p in parameters]}
            checkpoint.save(state, checkpoint_id=folder)
            if distributed.get_rank() == 1:
                os._exit(9)
        optimiser.step()


def loaded(folder):
    mesh = init_device_mesh("cpu", (2,))
    parameters = dtensors(mesh, (9, 6), (6, 9), (8, 8), seed=5)
    optimiser = Muon(parameters, lr=0.1)
    give(parameters)
    optimiser.step()
    state = {"w": parameters, "momenta": [optimiser.state[p]["momentum_buffer"] for p in parameters]}
    checkpoint.load(state, checkpoint_id=folder)
    optimiser.step()
    return all(bool(p.full_tensor().isfinite().all()) for p in parameters)


def test_a_process_that_dies_ends_the_others_with_its_name(tmp_path):
    start = time.monotonic()
    ended = outcomes(4, until_one_dies, str(tmp_path / "last"))
    assert time.monotonic() - start < 120
    assert ended[1].code == 9
    for rank in (0, 2, 3):
        assert "Muon: rank 1 of the ranks [0, 1, 2, 3] has ended" in ended[rank].error, ended[rank]
    assert run(2, loaded, str(tmp_path / "last")) == [True, True]


def with_nan():
    """Which matrices are finite after a step with NaN in one expert and one head, and one gradient of infinity."""
    mesh = init_device_mesh("cpu", (2, 2))
    spread = (Replicate(), Shard(0))
    experts = dtensors(mesh, (5, 6, 4), placements=(Shard(1), Shard(0)))
    heads = dtensors(mesh, (12, 8), placements=spread)
    plain = dtensors(mesh, (8, 8), (8, 8), placements=spread)
    options = [{"batch_axes": 1}, {"split": 3}, {}]
    optimiser = Muon([{"params": p, **own} for p, own in zip((experts, heads, plain), options, strict=True)], lr=0.1)
    gradients = [torch.ones(p.shape) for p in (*experts, *heads, *plain)]
    gradients[0][2, 0, 0], gradients[1][5, 1], gradients[2][7, 7] = float("nan"), float("nan"), float("inf")
    for p, g in zip((*experts, *heads, *plain), gradients, strict=True):
        p.grad = distribute_tensor(g, mesh, p.placements, src_data_rank=None)
    optimiser.step()
    e, h, w, other = (p.full_tensor().isfinite() for p in (*experts, *heads, *plain))
    return e.flatten(1).all(1).tolist(), h.reshape(3, -1).all(1).tolist(), bool(w.all()), bool(other.all())


def test_nan_stays_in_its_matrix():
    for found in run(4, with_nan):
        assert found == ([True, True, False, True, True], [True, False, True], False, True)


class Counted:
    """Collectives of c10d by name, and the work of msign on this process, while it is entered."""

    def __enter__(self):
        self.calls, self.work, self._old = [], 0, {}
        for name in ("all_to_all_single", "all_reduce", "all_gather_into_tensor", "broadcast", "scatter"):
            self._old[name] = getattr(distributed, name)
            setattr(distributed, name, self._counting(name, self._old[name]))
        self._msign = exchange.msign_batched
        exchange.msign_batched = self._counting_work
        return self

    def _counting(self, name, f):
        def counted(*args, **options):
            self.calls.append(name)
            return f(*args, **options)

        return counted

    def _counting_work(self, stacks, how):
        self.work += sum(len(x) * min(x.shape[1:]) ** 2 * max(x.shape[1:]) for x in stacks)
        return self._msign(stacks, how)

    def __exit__(self, *_):
        exchange.msign_batched = self._msign
        for name, f in self._old.items():
            setattr(distributed, name, f)


def counted():
    """What a step of a transformer's matrices communicates and computes, in one bucket, in several, and where nothing moves."""
    found = {}
    transformer = [(16, 16)] * 4 + [(64, 16), (16, 64)]
    for name, shape, placements in (("fsdp", (4,), (Shard(0),)), ("hsdp", (2, 2), (Replicate(), Shard(0)))):
        mesh = init_device_mesh("cpu", shape)
        parameters = dtensors(mesh, *transformer * 6, placements=placements)
        give(parameters)
        optimiser = Muon(parameters)
        with Counted() as seen:
            optimiser.step()
        found[name] = seen.calls, seen.work
    experts = dtensors(init_device_mesh("cpu", (4,)), (8, 16, 12))
    give(experts)
    optimiser = Muon([{"params": experts, "batch_axes": 1}])
    with Counted() as seen:
        optimiser.step()
    found["experts"] = seen.calls, seen.work
    return found


def test_two_all_to_alls_a_bucket_and_equal_work():
    ranks = run(4, counted)
    once = {
        "fsdp": 6 * (4 * 16**3 + 2 * 16 * 16 * 64),
        "hsdp": 6 * (4 * 16**3 + 2 * 16 * 16 * 64),
        "experts": 8 * 12 * 12 * 16,
    }
    for name, calls in {
        "fsdp": ["all_reduce", "all_to_all_single", "all_to_all_single"],
        "hsdp": ["all_reduce", "all_to_all_single", "all_to_all_single"],
        "experts": ["all_reduce"],
    }.items():
        assert all(found[name][0] == calls for found in ranks), name
        work = [found[name][1] for found in ranks]
        assert sum(work) == once[name]  # nothing twice
        assert max(work) <= 1.15 * sum(work) / 4
