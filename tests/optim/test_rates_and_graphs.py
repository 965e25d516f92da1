"""Learning rates that are tensors, steps that read no value (for CUDA graphs), and AdamW's foreach and fused."""

import copy
import sys

import pytest

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from matsign.backends import torch as backend  # noqa: E402
from matsign.optim import Muon, adamw, param_groups  # noqa: E402

SHAPES = ((6, 8), (8, 6), (12, 5), (7,))


def parameters(dtype=torch.float32, device="cpu"):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype, device=device)) for shape in SHAPES]


def groups(params, **adamw):
    named = [(f"layer.{k}", p) for k, p in enumerate(params)]
    return [{"params": named[:3]}, {"params": named[3:], "algorithm": "adamw", **adamw}]


def give(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


class NothingIsRead(TorchDispatchMode):
    """An error where a value is read on the host, and where numbers go from the host to a device or back."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for name in ("_local_scalar_dense", "nonzero", "aten.equal", "masked_select", "unique", "lift_fresh"):
            assert name not in str(function), f"{function} reads a value"
        result = function(*args, **kwargs)
        if "copy" in str(function) and isinstance(args[0], torch.Tensor):
            source = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]
            assert source.device == result.device, f"{function} from {source.device} to {result.device}"
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_rate_that_is_a_tensor_is_as_a_number(dtype):
    """Also when a scheduler, or the user, changes it in place."""
    one, two = parameters(dtype), parameters(dtype)
    rate = torch.tensor(0.05, dtype=torch.float64)
    numbers, tensors = Muon(groups(one), lr=0.05), Muon(groups(two), lr=rate)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5) for optimiser in (numbers, tensors)]
    for seed in range(4):
        give(one, seed)
        give(two, seed)
        numbers.step()
        tensors.step()
        for schedule in schedules:
            schedule.step()
        assert tensors.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05 / 16)
    for p, q in zip(one, two, strict=True):
        assert torch.allclose(p, q, rtol=2 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)
    rate.zero_()
    before = copy.deepcopy(two)
    tensors.step()
    assert all(torch.equal(p, q) for p, q in zip(two, before, strict=True))


def test_adamw_takes_a_tensor_as_torch_does():
    (*_, p), (*_, q) = parameters(), parameters()
    ours = Muon([{"params": [p], "algorithm": "adamw"}], lr=torch.tensor([0.1]))
    theirs = torch.optim.AdamW([q], lr=torch.tensor([0.1]), weight_decay=0.1)
    for seed in range(3):
        give([p, q], seed)
        q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {"fused": True, "amsgrad": True}])
def test_adamw_with_foreach_and_fused_is_that_of_torch(options):
    """Bit for bit, and after either class has loaded the state of the other, which keeps the options."""
    (*_, p), (*_, q) = parameters(), parameters()
    ours = Muon([{"params": [p], "algorithm": "adamw", **options}], lr=0.02)
    theirs = torch.optim.AdamW([q], lr=0.02, weight_decay=0.1, **options)

    def both(a, x, b, y, seed):
        give([x], seed)
        y.grad = x.grad.clone()
        a.step()
        b.step()
        assert torch.equal(x, y)

    for seed in range(3):
        both(ours, p, theirs, q, seed)
    again, other = Muon([{"params": [q], "algorithm": "adamw"}]), torch.optim.AdamW([p])
    again.load_state_dict(theirs.state_dict())
    other.load_state_dict(ours.state_dict())
    assert all(again.param_groups[0][name] == other.param_groups[0][name] == value for name, value in options.items())
    both(again, q, other, p, seed=4)


@pytest.mark.parametrize("how", [{}, {"tol": 0.05}, {"ns_steps": 3}, {"momentum_dtype": "bfloat16"}])
def test_a_capturable_step_reads_nothing_and_is_the_same_in_a_graph(how, monkeypatch):
    """On numbers, the matrices alone: on a CPU, torch's AdamW has no capturable step. It agrees with a step that reads."""
    plain, held = parameters()[:3], parameters()[:3]
    reading = Muon(plain, lr=0.05, **how)
    unread = Muon(held, lr=torch.tensor(0.05), capturable=True, **how)
    for seed in range(3):
        give(plain, seed)
        give(held, seed)
        reading.step()
        monkeypatch.setattr(backend, "capturing", lambda seed=seed: seed > 0)
        storage = {p: unread.state[p]["momentum_buffer"].data_ptr() for p in held if seed}
        with NothingIsRead():
            unread.step()
        monkeypatch.undo()
        assert all(unread.state[p]["momentum_buffer"].data_ptr() == at for p, at in storage.items())
    for p, q in zip(plain, held, strict=True):
        assert torch.allclose(p, q, atol=1e-5)


@pytest.mark.parametrize("implementation", [{}, {"foreach": True}, {"foreach": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_capturable_step_on_a_device_without_values_reads_nothing(implementation, dtype, monkeypatch):
    """Both algorithms, where torch takes this device for one with graphs."""
    for module in (sys.modules["torch.optim.adam"], adamw):
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda **_: ["meta"])
    params = parameters(dtype, "meta")
    optimiser = Muon(groups(params, **implementation), lr=torch.full((), 0.1, device="meta"), capturable=True)
    for p in params:
        p.grad = torch.empty_like(p)
    optimiser.step()
    kept = {p: dict(optimiser.state[p]) for p in params}
    assert kept[params[3]]["step"].is_meta
    monkeypatch.setattr(backend, "capturing", lambda: True)
    with NothingIsRead():
        optimiser.step()
    for p in params:
        assert all(optimiser.state[p][name] is x for name, x in kept[p].items())


def test_a_rate_on_the_cpu_serves_parameters_of_another_device():
    params = parameters(device="meta")
    optimiser = Muon(groups(params), lr=torch.full((1,), 0.1))
    for p in params:
        p.grad = torch.empty_like(p)
    optimiser.step()


def test_what_a_graph_cannot_contain_is_refused_by_name(monkeypatch):
    params = parameters()[:3]
    give(params, 0)
    before = copy.deepcopy(params)
    monkeypatch.setattr(backend, "capturing", lambda: True)

    def refused(optimiser, said):
        with pytest.raises(RuntimeError, match=said):
            optimiser.step()
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))

    named = [(f"layer.{k}", p) for k, p in enumerate(params)]
    refused(Muon(named), "CUDA graph .* 'layer.0' is in a group without capturable=True")
    refused(Muon(params, capturable=True), "parameter 0 of group 0 has no state .* take a step before")
    refused(
        Muon(named, capturable=True, lr=torch.ones((), device="meta")), "'layer.0' is on cpu, and its lr .* on meta"
    )
    optimiser = Muon(named, capturable=True)
    optimiser.state[params[0]]["momentum_buffer"] = torch.zeros(6, 8, dtype=torch.bfloat16)
    refused(optimiser, "'layer.0' has no state of its dtype")


def test_options_of_adamw_that_do_not_fit_are_refused_before_anything_changes():
    def refused(said, *given, error=ValueError, **options):
        with pytest.raises(error, match=said):
            Muon(groups(parameters(), **dict(given)), **options)

    refused("foreach=True and fused=True cannot be given together", ("foreach", True), ("fused", True))
    refused("foreach=True with a tensor as lr needs capturable=True", ("foreach", True), lr=torch.tensor(0.1))
    refused("fused must be None, True or False", ("fused", "yes"))
    refused("capturable must be True or False", capturable=2)
    for option in ({"fused": True}, {"foreach": False}):
        with pytest.raises(ValueError, match=r"is of AdamW and has no meaning for Muon; .*algorithm=\"adamw\""):
            Muon([{"params": parameters()[:1], **option}])
    Muon([{"params": parameters()[:1], "foreach": True, "fused": False}])

    saved = torch.optim.AdamW(parameters()[3:], foreach=True).state_dict()
    with pytest.raises(ValueError, match="foreach=True with a tensor as lr"):
        Muon([{"params": parameters()[3:], "algorithm": "adamw"}], lr=torch.tensor(0.1)).load_state_dict(saved)

    for options, dtype, said in (
        (
            {"foreach": True, "lr": torch.tensor(0.1)},
            torch.float32,
            "'layer.3' is in a group with foreach=True and a tensor",
        ),
        ({"capturable": True}, torch.float32, r"'layer.3' is on cpu: AdamW with capturable=True is for .* cuda"),
        ({"fused": True}, torch.complex64, r"'layer.3' has dtype torch.complex64: AdamW with fused=True"),
    ):
        params = parameters(dtype)
        optimiser = Muon(groups(params))
        optimiser.param_groups[1] |= options  # as a scheduler or a hook may, after the checks
        give(params, 0)
        before = copy.deepcopy(params)
        with pytest.raises(ValueError, match=said):
            optimiser.step()
        assert not optimiser.state
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))


@pytest.mark.parametrize("given", [0.3, torch.tensor(0.3)])
def test_a_loaded_rate_stays_a_tensor_of_its_device(given):
    params, other = parameters()[:1], parameters()[:1]
    ours, saved = Muon(params, lr=torch.tensor(0.1, dtype=torch.float64), capturable=True), Muon(other, lr=given)
    state = saved.state_dict()
    del state["param_groups"][0]["capturable"]  # as torch.optim.Muon saves it
    ours.load_state_dict(state)
    (group,) = ours.param_groups
    assert group["lr"].dtype == torch.float64
    assert group["lr"].item() == pytest.approx(0.3)
    assert group["capturable"] is True
    numbers = Muon(params, lr=0.1)
    numbers.load_state_dict(state)
    assert float(numbers.param_groups[0]["lr"]) == pytest.approx(0.3)


def test_a_loaded_rate_is_written_into_the_tensor_that_was_there():
    """Its holder goes on changing the rate; groups of one tensor that get different rates part."""
    rate = torch.tensor(0.1)
    ours, saved = Muon(groups(parameters()), lr=rate), Muon(groups(parameters()), lr=0.3)
    ours.load_state_dict(saved.state_dict())
    assert all(group["lr"] is rate for group in ours.param_groups)
    assert rate.item() == pytest.approx(0.3)
    saved.param_groups[1]["lr"] = 0.02
    ours.load_state_dict(saved.state_dict())
    assert [group["lr"].item() for group in ours.param_groups] == pytest.approx([0.3, 0.02])
    assert rate.item() == pytest.approx(0.3)
    saved.param_groups[1]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must be at least 0"):
        ours.load_state_dict(saved.state_dict())
    assert [group["lr"].item() for group in ours.param_groups] == pytest.approx([0.3, 0.02])


def test_outputs_last_moves_as_the_transposed_parameter():
    (p,), (q,) = parameters()[:1], parameters()[:1]
    q = torch.nn.Parameter(q.detach().mT.clone())
    one, two = Muon([p], split=3, lr=0.1), Muon([q], split=3, lr=0.1, outputs_last=True)
    for seed in range(2):
        give([p], seed)
        q.grad = p.grad.mT.clone()
        one.step()
        two.step()
    assert torch.allclose(p, q.mT, atol=1e-6)
    with pytest.raises(ValueError, match=r"8 outputs of parameter 'x' .* are not 3 equal blocks"):
        Muon([("x", p)], outputs_last=True, split=3)


def test_every_group_of_a_model_is_capturable():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
    optimiser = Muon(param_groups(model, adamw={"fused": True}), capturable=True)
    assert [g["capturable"] for g in optimiser.param_groups] == [True, True]
    assert [g.get("fused") for g in optimiser.param_groups] == [None, True]
