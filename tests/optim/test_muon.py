"""matsign.optim.Muon against torch.optim.Muon, AdamW, and Muon's formula written here in float64."""

import contextlib
import inspect
import io
import math
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from matsign.optim import Muon, param_groups  # noqa: E402

MUON = (3.4445, -4.7750, 2.0315)
theirs = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def parameters(*shapes, dtype=torch.float32):
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]


def copies(params):
    return [torch.nn.Parameter(p.detach().clone()) for p in params]


def give(params, generator=None, scale=1.0):
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=generator).to(p.dtype)


def run(optimiser, count, seed=1):
    """Steps along the same gradients for every optimiser."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        give([p for group in optimiser.param_groups for p in group["params"]], generator)
        optimiser.step()


def newton_schulz(g, coefficients=MUON, steps=5):
    """Muon's iteration without the rounding to bfloat16."""
    a, b, c = coefficients
    x = g / g.norm()
    for _ in range(steps):
        r = x @ x.mT
        x = a * x + (b * r + c * r @ r) @ x
    return x


def formula(params, gradients, *, lr, weight_decay, momentum, nesterov, adjust=None, **iteration):
    """Muon as published, in float64, one parameter at a time."""
    params = [p.detach().double() for p in params]
    buffers = [torch.zeros_like(p) for p in params]
    for step in gradients:
        for k, g in enumerate(step):
            buffers[k] = momentum * buffers[k] + (1 - momentum) * g.double()
            u = (1 - momentum) * g.double() + momentum * buffers[k] if nesterov else buffers[k]
            n, m = u.shape
            s = 0.2 * math.sqrt(max(n, m)) if adjust == "match_rms_adamw" else math.sqrt(max(1, n / m))
            params[k] = params[k] * (1 - lr * weight_decay) - lr * s * newton_schulz(u, **iteration)
    return params


SHAPES = [(12, 20), (20, 12), (12, 20), (16, 16), (5, 40)]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
def test_it_is_the_formula_of_muon(nesterov, adjust):
    params = parameters(*SHAPES)
    options = {"lr": 0.03, "weight_decay": 0.2, "momentum": 0.9, "nesterov": nesterov}
    optimiser = Muon(params, adjust_lr_fn=adjust, ns_coefficients=MUON, **options)
    start, gradients = copies(params), []
    for _ in range(4):
        give(params)
        gradients.append([p.grad.clone() for p in params])
        optimiser.step()
    for p, wanted in zip(params, formula(start, gradients, adjust=adjust, **options), strict=True):
        assert torch.allclose(p.double(), wanted, atol=2e-5)


@theirs
@pytest.mark.parametrize("options", [{}, {"ns_steps": 4}, {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 6}])
def test_it_is_torch_up_to_the_rounding_of_torch(options):
    params = parameters(*SHAPES)
    others = copies(params)
    ours = Muon(params, lr=0.1, **{"ns_coefficients": MUON, **options})
    run(ours, 3)
    torchs = torch.optim.Muon(others, lr=0.1, **options)
    run(torchs, 3)
    for p, other in zip(params, others, strict=True):
        assert (p - other).norm() < 0.02 * 0.1 * 3 * math.sqrt(min(p.shape))  # a sign has norm √rank; bf16 has 2e-3
        assert torch.equal(ours.state[p]["momentum_buffer"], torchs.state[other]["momentum_buffer"])


@theirs
def test_the_arguments_are_those_of_torch():
    ours, torchs = (inspect.signature(m).parameters for m in (Muon, torch.optim.Muon))
    assert list(ours)[: len(torchs)] == list(torchs)
    for name, parameter in torchs.items():
        assert ours[name].kind == parameter.kind
        if name not in ("ns_coefficients", "ns_steps"):  # used only if they are given
            assert ours[name].default == parameter.default
    assert all(p.kind is p.KEYWORD_ONLY for name, p in ours.items() if name not in torchs)


@theirs
def test_state_goes_to_torch_and_back():
    params = parameters(*SHAPES)
    others = copies(params)
    ours, other = Muon(params, lr=0.05), torch.optim.Muon(others, lr=0.01, momentum=0.8)
    run(other, 3)
    ours.load_state_dict(other.state_dict())
    for p, q in zip(params, others, strict=True):
        assert torch.equal(ours.state[p]["momentum_buffer"], other.state[q]["momentum_buffer"])
    group = ours.param_groups[0]
    assert (group["lr"], group["momentum"], group["steps"], group["split"]) == (0.01, 0.8, 4, 1)
    run(ours, 1)
    back = torch.optim.Muon(others)
    back.load_state_dict(ours.state_dict())
    assert back.param_groups[0]["ns_steps"] == 5
    assert back.param_groups[0]["ns_coefficients"] == MUON
    run(back, 1)


@pytest.mark.parametrize("options", [{}, {"schedule": "you"}, {"tol": 1e-2}, {"schedule": [(1.5, -0.5, 0.0)] * 3}])
def test_resumed_bit_for_bit(options):
    def build(tensors):
        return Muon([{"params": tensors[:3]}, {"params": tensors[3:], "algorithm": "adamw"}], lr=0.02, **options)

    straight = parameters((8, 12), (12, 8), (6, 3, 3, 3), (7,))
    resumed = copies(straight)
    one = build(straight)
    run(one, 3, seed=1)
    run(one, 3, seed=2)
    two = build(resumed)
    run(two, 3, seed=1)
    file = io.BytesIO()
    torch.save({"optimiser": two.state_dict(), "params": resumed}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    three = build(saved["params"])
    three.load_state_dict(saved["optimiser"])
    run(three, 3, seed=2)
    for p, q in zip(straight, saved["params"], strict=True):
        assert torch.equal(p, q)


def test_it_pickles():
    params = parameters((4, 6))
    optimiser = Muon(params)
    run(optimiser, 1)
    again = pickle.loads(pickle.dumps(optimiser))
    assert again.param_groups[0]["steps"] == 4


def directions(*shapes, grads=None, dtype=torch.float32, **options):
    """The changes of the parameters in one step from zero momentum, and their gradients."""
    params = parameters(*shapes, dtype=dtype)
    before = copies(params)
    give(params)
    for p, g in zip(params, grads or [], strict=False):
        p.grad = g
    optimiser = Muon(params, lr=1.0, weight_decay=0.0, **options)
    kept = [p.grad.clone() for p in params]
    optimiser.step()
    for p, g in zip(params, kept, strict=True):
        assert torch.equal(p.grad, g) or g.isnan().any()
    return [b.detach() - p.detach() for p, b in zip(params, before, strict=True)], kept


def polar(g):
    u, _, vh = torch.linalg.svd(g.double(), full_matrices=False)
    return u @ vh


def test_a_convolution_is_the_matrix_of_outputs_by_everything_else():
    (move,), (g,) = directions((8, 3, 2, 2), tol=1e-3)
    wanted = polar(g.reshape(8, 12)).reshape(g.shape)
    assert (move - wanted).norm() < 0.01


def test_split_makes_every_block_a_matrix():
    (move,), (g,) = directions((12, 10), split=3, tol=1e-3)
    for m, block in zip(move.split(4), g.split(4), strict=True):
        assert (m - polar(block)).norm() < 0.01


@pytest.mark.parametrize("experts", [False, True])
def test_blocks_of_unequal_sizes(experts):
    """Queries, keys and values of grouped-query attention: each is a matrix with a rate of its own."""
    shape, options = ((3, 20, 6), {"batch_axes": 1}) if experts else ((20, 6), {})
    (move,), (g,) = directions(shape, split=[12, 4, 4], tol=1e-3, **options)
    for m, block, rate in zip(move.split((12, 4, 4), -2), g.split((12, 4, 4), -2), (math.sqrt(2), 1, 1), strict=True):
        assert torch.linalg.vector_norm(m - rate * polar(block)) < 0.03


def test_unequal_blocks_move_as_parameters_of_their_own():
    fused = parameters((20, 12))[0]
    grid = [torch.nn.Parameter(x.detach().clone()) for rows in fused.split((8, 12)) for x in rows.split((5, 4, 3), 1)]
    one, two = Muon([fused], lr=0.1, split=(8, 12), split_inputs=(5, 4, 3)), Muon(grid, lr=0.1)
    for _ in range(3):
        give([fused])
        parts = (x for rows in fused.grad.split((8, 12)) for x in rows.split((5, 4, 3), 1))
        for p, g in zip(grid, parts, strict=True):
            p.grad = g.clone()
        one.step()
        two.step()
    moved = torch.cat([torch.cat(grid[:3], 1), torch.cat(grid[3:], 1)])
    assert torch.allclose(fused, moved, atol=1e-6)
    again = Muon([fused])
    again.load_state_dict(save(one))
    assert again.param_groups[0]["split"] == (8, 12)


def test_equal_sizes_are_equal_blocks():
    params = parameters((12, 8))
    others = copies(params)
    run(Muon(params, split=3, split_inputs=2), 2)
    run(Muon(others, split=(4, 4, 4), split_inputs=(4, 4)), 2)
    assert torch.allclose(params[0], others[0], atol=1e-6)


@pytest.mark.parametrize("split", [1, 2])
def test_inputs_are_split_too(split):
    (move,), (g,) = directions((8, 30), split=split, split_inputs=3, tol=1e-3)
    for m, block in zip(move.split(8 // split), g.split(8 // split), strict=True):
        for part, head in zip(m.split(10, 1), block.split(10, 1), strict=True):
            assert (part - polar(head)).norm() < 0.03


@pytest.mark.parametrize("split", [1, 2])
def test_experts_are_a_stack(split):
    (move,), (g,) = directions((3, 8, 10), batch_axes=1, split=split, tol=1e-3)
    for m, expert in zip(move, g, strict=True):
        for part, block in zip(m.split(8 // split), expert.split(8 // split), strict=True):
            assert (part - polar(block)).norm() < 0.01


def test_the_rate_is_that_of_the_block():
    (move,), (g,) = directions((24, 4), split=3, tol=1e-3)
    assert (move - torch.cat([math.sqrt(2) * polar(x) for x in g.split(8)])).norm() < 0.03


def test_a_batch_is_as_one_by_one():
    shapes = [(6, 9), (9, 6), (6, 9), (2, 6, 9), (3, 3)]
    params = parameters(*shapes)
    alone = copies(params)
    options = {"lr": 0.1, "batch_axes": 0}
    groups = [{"params": params[:3]}, {"params": params[3:4], "batch_axes": 1}, {"params": params[4:]}]
    give(params)
    for p, q in zip(params, alone, strict=True):
        q.grad = p.grad.clone()
    Muon(groups, **options).step()
    for k, q in enumerate(alone):
        Muon([q], **{**options, "batch_axes": int(k == 3)}).step()
    for p, q in zip(params, alone, strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_equal_and_transposed_shapes_take_one_call(monkeypatch):
    from matsign.optim import batching

    calls = []
    monkeypatch.setattr(batching, "orthogonalise", lambda x, how: calls.append(tuple(x.shape)) or x)
    directions((6, 9), (9, 6), (6, 3, 3), (4, 4), (6, 9))
    assert sorted(calls) == [(1, 1, 1), (1, 4, 4), (4, 6, 9)]  # the first checks the options
    monkeypatch.setattr(batching, "LARGEST_ON_CPU", 2 * 54)
    calls.clear()
    directions((6, 9), (9, 6), (6, 3, 3), (4, 4), (6, 9))
    assert sorted(calls) == [(1, 1, 1), (1, 4, 4), (2, 6, 9), (2, 6, 9)]


def test_it_is_deterministic():
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        params = parameters(*SHAPES)
        run(Muon(params), 3)
        runs.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*runs, strict=True))


def test_the_default_is_nearer_to_orthogonal_than_newton_schulz():
    (ours,), _ = directions((48, 48))
    torch.manual_seed(0)
    (muons,), _ = directions((48, 48), ns_coefficients=MUON)
    ours, muons = (torch.linalg.svdvals(x) for x in (ours, muons))
    assert ours.min() > muons.min()
    assert (ours - 1).abs().max() < 1.5


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_the_size_of_a_gradient_does_not_matter(scale):
    torch.manual_seed(1)
    g = torch.randn(8, 10)
    tangents, _ = directions((8, 10), (8, 10), grads=[g, g * scale], tol=1e-2)
    assert torch.allclose(*tangents, atol=1e-2)


@pytest.mark.parametrize(
    ("device", "dtype", "asked", "taken"),
    [
        ("cpu", torch.float32, None, None),
        ("meta", torch.float32, None, "half"),
        ("meta", torch.bfloat16, None, "half"),
        ("meta", torch.float64, None, None),
        ("meta", torch.float32, "full", "full"),
        ("cpu", torch.float32, "half", "half"),
    ],
)
def test_half_precision_on_an_accelerator_unless_told_otherwise(device, dtype, asked, taken, monkeypatch):
    from matsign.optim import batching

    calls = []
    monkeypatch.setattr(batching, "msign", lambda stack, **options: calls.append(options) or stack)
    stack = torch.empty(2, 4, 3, device=device, dtype=dtype)
    batching.orthogonalise(stack, batching.msign_config(precision=asked))
    assert calls[-1].get("precision") == taken


def test_zero_gradients_move_nothing():
    (still, moved), _ = directions((5, 7), (5, 7), grads=[torch.zeros(5, 7)])
    assert torch.equal(still, torch.zeros(5, 7))
    assert moved.norm() > 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_stays_in_its_own_matrix(bad):
    g = torch.randn(5, 7)
    g[2, 3] = bad
    (spoilt, fine), _ = directions((5, 7), (5, 7), grads=[g])
    assert spoilt.isnan().all()
    assert fine.isfinite().all()


def test_a_parameter_without_gradient_is_left_alone():
    params = parameters((4, 5), (4, 5), (6,))
    before = copies(params)
    optimiser = Muon([{"params": params[:2]}, {"params": params[2:], "use_muon": False}])
    params[0].grad = torch.randn(4, 5)
    optimiser.step()
    assert not torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])
    assert torch.equal(params[2], before[2])
    Muon(parameters((3, 3))).step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype):
    (move,), (g,) = directions((6, 9), dtype=dtype, tol=1e-2)
    assert move.dtype == dtype
    assert (move.double() - polar(g)).norm() < 0.1
    params = parameters((6, 9), dtype=dtype)
    optimiser = Muon(params)
    run(optimiser, 2)
    assert optimiser.state[params[0]]["momentum_buffer"].dtype == dtype


def test_groups_with_adamw_are_adamw():
    params = parameters((7, 5), (9,), (3, 2, 2))
    others = copies(params)
    (matrix,) = parameters((5, 6))
    alone = copies([matrix])
    options = {"lr": 3e-3, "weight_decay": 0.07}
    ours = Muon(
        [{"params": [matrix]}, {"params": params, "algorithm": "adamw", **options, "betas": (0.8, 0.9)}], lr=0.1
    )
    adamw = torch.optim.AdamW(others, betas=(0.8, 0.9), **options)
    only = Muon(alone, lr=0.1)
    for _ in range(4):
        give([matrix, *params])
        for p, q in zip([matrix, *params], [*alone, *others], strict=True):
            q.grad = p.grad.clone()
        for optimiser in (ours, adamw, only):
            optimiser.step()
    assert torch.equal(matrix, alone[0])
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
    assert ours.param_groups[1]["eps"] == 1e-8


def test_groups_of_an_optimiser_make_another():
    params = parameters((6, 4), (4,))
    first = Muon([{"params": params[:1], "tol": 1e-2}, {"params": params[1:], "algorithm": "adamw"}], lr=0.3)
    second = Muon(first.param_groups)
    assert [{**group} for group in second.param_groups] == [{**group} for group in first.param_groups]


def test_groups_have_their_own_way():
    params = parameters((6, 8), (6, 8), (6, 8), (8,))
    named = [
        {"params": params[:1], "schedule": "su"},
        {"params": params[1:2], "ns_steps": 3},
        {"params": params[2:3]},
        {"params": params[3:], "algorithm": "adamw"},
    ]
    optimiser = Muon(named, tol=0.1)
    found = [(g["schedule"], g["ns_steps"], g["tol"]) for g in optimiser.param_groups]
    assert found == [("su", 5, None), (None, 3, None), (None, 5, 0.1), (None, 5, 0.1)]
    run(optimiser, 2)
    optimiser.add_param_group({"params": parameters((3, 4))})
    assert len(optimiser.param_groups) == 5


def small_model():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def both(model, **options):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return Muon([{"params": matrices}, {"params": others, "algorithm": "adamw"}], lr=0.02, **options)


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    model, x = small_model(), torch.randn(10, 6)
    optimiser = both(model)

    def closure():
        optimiser.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    losses = [optimiser.step(closure).item() for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


def test_accumulated_gradients_are_those_of_the_whole_batch():
    x, models = torch.randn(8, 6), (small_model(), small_model())
    for model, parts in zip(models, (1, 4), strict=True):
        optimiser = both(model, tol=1e-2)
        for part in x.chunk(parts):
            (model(part).square().mean() / parts).backward()
        optimiser.step()
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-4)


def test_with_a_gradient_scaler():
    model, x = small_model(), torch.randn(8, 6)
    plain, optimiser = small_model(), both(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(model(x).square().mean()).backward()
    scaler.step(optimiser)
    scaler.update()
    other = both(plain)
    plain(x).square().mean().backward()
    other.step()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    before = [p.detach().clone() for p in model.parameters()]
    next(iter(model.parameters())).grad.fill_(math.inf)
    scaler.scale(model(x).square().mean()).backward()
    scaler.step(optimiser)  # finds the infinity and leaves the step out
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_schedulers_and_tensor_rates():
    params = parameters((5, 6))
    before = copies(params)
    optimiser = Muon(params, lr=torch.tensor(0.5), weight_decay=0.0)
    give(params)
    optimiser.step()
    assert 0.5 < (params[0] - before[0]).norm() / (0.5 * math.sqrt(5)) < 1.3
    optimiser = Muon(params, lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.0 if step else 1.0)
    run(optimiser, 1)
    scheduler.step()
    before = copies(params)
    run(optimiser, 1)
    assert torch.equal(params[0], before[0])
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=5)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.1 / 25)
    run(optimiser, 1)
    cycle.step()
    assert optimiser.param_groups[0]["momentum"] < 0.95


@pytest.mark.compiles
def test_with_a_compiled_model():
    model, x = small_model(), torch.randn(10, 6)
    compiled, optimiser = torch.compile(model, backend="aot_eager"), both(model)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = compiled(x).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.compiles
@pytest.mark.parametrize("lr", [0.1, "tensor"])
def test_compiled_steps_are_the_steps_and_nothing_is_compiled_again(lr):
    """With a new learning rate in every step."""
    torch._dynamo.reset()
    params = parameters((4, 6), (6, 4), (3, 4), (5,))
    others, rates = copies(params), [torch.tensor(0.1) if lr == "tensor" else lr for _ in range(2)]
    one, two = (
        Muon([{"params": x[:3]}, {"params": x[3:], "algorithm": "adamw"}], lr=rate)
        for x, rate in zip((params, others), rates, strict=True)
    )
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 1 / (1 + k)) for optimiser in (one, two)]
    step = torch.compile(two.step, backend="eager")
    for seed in range(4):
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            run(one, 1, seed)
            give(others, torch.Generator().manual_seed(seed))
            step()
        for schedule in schedules:
            schedule.step()
        for p, q in zip(params, others, strict=True):
            assert torch.equal(p, q)
    assert float(two.param_groups[0]["lr"]) == pytest.approx(0.02)


@pytest.mark.compiles
def test_a_compiled_pass_with_its_step_in_it():
    torch._dynamo.reset()
    model, x = small_model(), torch.randn(10, 6)
    optimiser = both(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.9**k)

    @torch.compile(backend="eager")
    def learn():
        optimiser.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimiser.step()
        return loss

    losses = [learn().item() for _ in range(2)]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(4):
            schedule.step()
            losses.append(learn().item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "lr must be at least 0"),
        ({"lr": torch.ones(2)}, "one number"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"adjust_lr_fn": "none"}, "match_rms_adamw"),
        ({"algorithm": "sgd"}, "muon, adamw"),
        ({"ns_steps": 100}, "ns_steps"),
        ({"ns_coefficients": (1.0, 2.0)}, "three numbers"),
        ({"ns_steps": 5, "schedule": "you"}, "give one of"),
        ({"tol": 0.1, "schedule": "you"}, "give one of"),
        ({"schedule": "none"}, "schedule must be one of"),
        ({"steps": 0}, "steps"),
        ({"tol": 2.0}, "tol"),
        ({"split": 4}, "outputs .* are not 4 equal blocks"),
        ({"split_inputs": 7}, "inputs .* are not 7 equal blocks"),
        ({"batch_axes": 1}, "not a matrix after 1 axes"),
    ],
)
def test_what_is_wrong_is_said(options, said):
    with pytest.raises(ValueError, match=said):
        Muon(parameters((6, 5)), **options)


def test_vectors_and_sparse_gradients_are_refused():
    with pytest.raises(ValueError, match=r"\(4,\) is not a matrix"):
        Muon(parameters((4,)))
    table = torch.nn.Embedding(4, 3, sparse=True)
    optimiser = Muon(table.parameters())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimiser.step()
    assert not optimiser.state


@pytest.mark.slow
def test_importing_the_package_imports_no_array_library():
    code = (
        "import sys, matsign; assert {'Muon', 'scale_by_msign'} < set(dir(matsign.optim)); assert 'torch' not in sys.modules\n"
        "assert 'jax' not in sys.modules; sys.modules['jax'] = None; assert matsign.optim.Muon.__name__ == 'Muon'\n"
        "from matsign.optim import Muon; assert Muon is matsign.optim.Muon\n"
        "try: matsign.optim.scale_by_msign\nexcept ImportError: print('absent')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["absent"], done.stderr
    import matsign.optim

    with pytest.raises(AttributeError, match="no attribute"):
        _ = matsign.optim.Adam


def save(optimiser):
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gradient", [torch.bfloat16, torch.float32])
def test_sixteen_bits_resume_with_the_momentum_that_was_saved(saved, gradient):
    """torch's loader casts a momentum to the dtype of its parameter; here the wider of its dtype and the gradient's is kept."""
    if not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this PyTorch has gradients in the dtype of their parameter only")

    def build(p):
        p.grad_dtype = None
        return Muon([p], lr=0.1)

    one = parameters((6, 9), dtype=torch.bfloat16)[0]
    first = build(one)
    one.grad = torch.randn(6, 9).to(saved)
    first.step()
    assert first.state[one]["momentum_buffer"].dtype == saved
    two = copies([one])[0]
    second = build(two)
    second.load_state_dict(save(first))
    assert torch.equal(second.state[two]["momentum_buffer"], first.state[one]["momentum_buffer"])
    assert second.state[two]["momentum_buffer"].dtype == saved
    g = torch.randn(6, 9).to(gradient)
    for p, optimiser in ((one, first), (two, second)):
        p.grad = g.clone()
        optimiser.step()
    assert torch.equal(one, two)
    assert second.state[two]["momentum_buffer"].dtype == torch.promote_types(saved, gradient)


@pytest.mark.parametrize(
    ("kept", "dtype"), [("bfloat16", torch.float32), (torch.float16, torch.float32), ("float32", torch.bfloat16)]
)
@pytest.mark.parametrize("nesterov", [True, False])
def test_a_momentum_in_a_dtype_of_its_own(kept, dtype, nesterov):
    """Each step is that of the formula on the rounded momentum before it; resumed bit for bit."""
    name = str(kept).removeprefix("torch.")
    params, options = parameters((6, 9), (9, 6), dtype=dtype), {"lr": 0.1, "nesterov": nesterov}
    other = copies(params)
    one = Muon(params, momentum_dtype=kept, **options)
    momenta = [torch.zeros(p.shape, dtype=getattr(torch, name)) for p in params]
    for _ in range(3):
        give(params)
        for k, p in enumerate(params):
            wide = torch.promote_types(dtype, momenta[k].dtype)
            momenta[k] = momenta[k].to(wide).lerp(p.grad.to(wide), 1 - 0.95).to(momenta[k].dtype)
        one.step()
        for p, momentum in zip(params, momenta, strict=True):
            assert torch.equal(one.state[p]["momentum_buffer"], momentum)
    for p, q in zip(params, other, strict=True):
        q.data.copy_(p.data)
    two = Muon(other, **options)
    two.load_state_dict(save(one))
    assert two.param_groups[0]["momentum_dtype"] == name
    for optimiser in (one, two):
        run(optimiser, 2)
    for p, q in zip(params, other, strict=True):
        assert torch.equal(p, q)
        assert two.state[q]["momentum_buffer"].dtype == getattr(torch, name)


@theirs
def test_the_dtype_of_the_momentum_is_kept_when_torch_brings_the_state():
    params = parameters((4, 6))
    other = torch.optim.Muon(copies(params))
    run(other, 1)
    ours = Muon(params, momentum_dtype=torch.bfloat16)
    ours.load_state_dict(other.state_dict())
    run(ours, 1)
    assert ours.state[params[0]]["momentum_buffer"].dtype == torch.bfloat16
    torch.optim.Muon(copies(params)).load_state_dict(ours.state_dict())


def test_a_group_has_a_momentum_dtype_of_its_own():
    params = parameters((4, 6), (6, 4), (3,))
    optimiser = Muon([params[0], params[1]], momentum_dtype="bfloat16")
    optimiser.add_param_group({"params": params[2], "algorithm": "adamw"})
    group = {"params": parameters((4, 4)), "momentum_dtype": torch.float64}
    optimiser.add_param_group(group)
    run(optimiser, 1)
    assert optimiser.state[params[0]]["momentum_buffer"].dtype == torch.bfloat16
    assert optimiser.state[params[2]]["exp_avg"].dtype == torch.float32
    assert optimiser.state[group["params"][0]]["momentum_buffer"].dtype == torch.float64
    with pytest.raises(ValueError, match=r"parameter 'w' has dtype torch.complex64, .* momentum_dtype=torch.bfloat16"):
        Muon([("w", torch.nn.Parameter(torch.eye(3, dtype=torch.complex64)))], momentum_dtype="bfloat16")


def test_state_of_keller_jordan():
    """Groups with ``use_muon``, a step count that is an int, momenta under the names of both algorithms."""
    matrix, vector = parameters((4, 6), (5,))
    momentum, mean, square = torch.randn(4, 6), torch.randn(5), torch.rand(5)
    state = {
        "state": {
            0: {"momentum_buffer": momentum},
            1: {"exp_avg": mean, "exp_avg_sq": square, "step": 7},
        },
        "param_groups": [
            {"params": [0], "lr": 0.02, "momentum": 0.9, "weight_decay": 0.01, "use_muon": True},
            {"params": [1], "lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.0, "use_muon": False},
        ],
    }
    groups = [{"params": [matrix], "use_muon": True}, {"params": [vector], "use_muon": False}]
    optimiser = Muon(groups, lr=1.0)
    optimiser.load_state_dict(state)
    assert optimiser.param_groups[1]["eps"] == 1e-10
    assert optimiser.param_groups[0]["momentum"] == 0.9
    assert optimiser.state[vector]["step"].item() == 7
    assert state["state"][1]["step"] == 7
    start = matrix.detach().double()
    give([matrix, vector])
    other = copies([vector])[0]
    adamw = torch.optim.AdamW([other], lr=3e-4, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    adamw.load_state_dict(
        {
            "state": {0: {"exp_avg": mean.clone(), "exp_avg_sq": square.clone(), "step": torch.tensor(7.0)}},
            "param_groups": [{**adamw.state_dict()["param_groups"][0]}],
        }
    )
    other.grad = vector.grad.clone()
    u = 0.1 * matrix.grad + 0.9 * (0.9 * momentum + 0.1 * matrix.grad)
    optimiser.step()
    adamw.step()
    assert torch.equal(vector, other)
    move = (start * (1 - 0.02 * 0.01) - matrix.detach().double()) / 0.02
    assert torch.linalg.vector_norm(move - polar(u)) < 0.8


@theirs
def test_steps_that_torch_was_asked_for_are_taken_and_its_default_leaves_ours():
    params = parameters((4, 6))
    for options, steps, schedule in (
        ({}, 4, None),
        ({"ns_steps": 3}, None, 3),
        ({"ns_coefficients": (2, -1.5, 0.5)}, None, 5),
    ):
        other = torch.optim.Muon(copies(params), **options)
        ours = Muon(params)
        ours.load_state_dict(other.state_dict())
        group = ours.param_groups[0]
        assert group["steps"] == steps
        assert schedule is None or group["ns_steps"] == schedule
        run(ours, 1)


@pytest.mark.parametrize(
    "options", [{"amsgrad": True}, {"maximize": True}, {"amsgrad": True, "maximize": True}, {"foreach": False}]
)
def test_adamw_with_the_options_of_torch(options):
    params = parameters((7, 5), (9,))
    others = copies(params)
    ours = Muon([{"params": params, "algorithm": "adamw", **options}], lr=0.02)
    torchs = torch.optim.AdamW(others, lr=0.02, weight_decay=0.1, **options)
    for _ in range(4):
        give(params)
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad.clone()
        ours.step()
        torchs.step()
    resumed = copies(params)
    again = Muon([{"params": resumed, "algorithm": "adamw"}], lr=0.5)
    again.load_state_dict(save(torchs))
    for p, q, r in zip(params, others, resumed, strict=True):
        assert torch.equal(p, q)
        p.grad = q.grad = torch.randn(p.shape)
        r.grad = p.grad.clone()
    for optimiser in (torchs, again):
        optimiser.step()
    for q, r in zip(others, resumed, strict=True):
        assert torch.equal(q, r)


def test_muon_maximises():
    up, down = (copies(p) for p in [parameters((4, 6), (6, 4))] * 2)
    one, two = Muon(up, lr=0.1), Muon([{"params": down, "maximize": True}], lr=0.1)
    for _ in range(3):
        give(up)
        for p, q in zip(up, down, strict=True):
            q.grad = -p.grad
        one.step()
        two.step()
    for p, q in zip(up, down, strict=True):
        assert torch.equal(p, q)


BAD = [
    ({"lr": math.nan}, "lr must be"),
    ({"lr": math.inf}, "lr must be"),
    ({"lr": -(10**400)}, "lr must be"),
    ({"lr": "fast"}, "lr must be"),
    ({"lr": torch.tensor(-1.0)}, "lr must be"),
    ({"lr": torch.tensor(1j)}, "lr must be"),
    ({"weight_decay": math.inf}, "weight_decay must be"),
    ({"weight_decay": "no"}, "weight_decay must be"),
    ({"weight_decay": -1e-9}, "weight_decay must be"),
    ({"momentum": None}, "momentum must be"),
    ({"eps": -1e-8}, "eps must be"),
    ({"eps": math.nan}, "eps must be"),
    ({"eps": [1e-8]}, "eps must be"),
    ({"nesterov": "yes"}, "nesterov must be True or False"),
    ({"maximize": "yes"}, "maximize must be True or False"),
    ({"differentiable": True}, "differentiable=True is not supported"),
    ({"decoupled_weight_decay": False}, "decoupled_weight_decay=False is not supported"),
    ({"split": 2.0}, "split must be a whole number"),
    ({"split": 0}, "split must be a whole number"),
    ({"split": ()}, "split must be a whole number"),
    ({"split": (3, 0)}, "split must be a whole number"),
    ({"split": (True, 2)}, "split must be a whole number"),
    ({"split_inputs": "2"}, "split_inputs must be a whole number"),
    ({"batch_axes": -1}, "batch_axes must be a whole number"),
    ({"precision": ["half"]}, "precision must be"),
    ({"momentum_dtype": "int8"}, "momentum_dtype must be one of float32"),
    ({"momentum_dtype": torch.int64}, "momentum_dtype must be"),
    ({"momentum_dtype": 16}, "momentum_dtype must be"),
    ({"adjust_lr_fn": ["original"]}, "adjust_lr_fn must be"),
]
BAD_ADAMW = [
    ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
    ({"betas": (-0.1, 0.9)}, "betas must be two numbers"),
    ({"betas": 0.9}, "betas must be two numbers"),
    ({"betas": (0.9,)}, "betas must be two numbers"),
    ({"betas": (math.nan, 0.9)}, "betas must be two numbers"),
    ({"betas": ("a", 0.9)}, "betas must be two numbers"),
    ({"amsgrad": 2}, "amsgrad must be True or False"),
]
BAD_MUON = [
    ({"amsgrad": True}, "amsgrad=True is of AdamW"),
    ({"ns_coefficients": (math.nan, 1, 1)}, "three numbers"),
    ({"ns_coefficients": 3}, "three numbers"),
    ({"ns_steps": True}, "ns_steps must be"),
    ({"ns_steps": 2**63}, "ns_steps must be"),
    ({"steps": 2**63}, "steps must be"),
    ({"schedule": 3}, "a schedule is rows"),
    ({"schedule": [(10**400, 1, 1)]}, "a schedule is rows"),
    ({"tol": 1e-12}, "float32 cannot hold"),
]


@pytest.mark.parametrize(("options", "said"), BAD + BAD_ADAMW + BAD_MUON)
def test_bad_options_of_a_group_and_of_a_loaded_state(options, said):
    """They are refused, and nothing has changed."""
    algorithms = (
        ["muon"] if (options, said) in BAD_MUON else ["adamw"] if (options, said) in BAD_ADAMW else ["muon", "adamw"]
    )
    for algorithm in algorithms:
        params = parameters((4, 6))
        with pytest.raises(ValueError, match=said):
            Muon([{"params": params, "algorithm": algorithm, **options}])
        optimiser = Muon([{"params": params, "algorithm": algorithm}])
        run(optimiser, 1)
        before, held = dict(optimiser.param_groups[0]), {k: v.clone() for k, v in optimiser.state[params[0]].items()}
        state = save(optimiser)
        if any(name in options for name in ("schedule", "tol", "ns_steps", "ns_coefficients")):
            state["param_groups"][0] |= {"schedule": None, "steps": None, "tol": None}
        state["param_groups"][0] |= options
        with pytest.raises(ValueError, match=said):
            optimiser.load_state_dict(state)
        assert optimiser.param_groups[0] == before
        assert all(torch.equal(optimiser.state[params[0]][k], v) for k, v in held.items())
        with pytest.raises(ValueError, match=said):
            optimiser.add_param_group({"params": parameters((4, 6)), "algorithm": algorithm, **options})
        assert len(optimiser.param_groups) == 1


def test_a_misspelt_option_is_an_error_and_keys_of_others_are_not():
    for key, option in {"splot": "split", "beta": "betas", "weight_deacy": "weight_decay", "step": "steps"}.items():
        with pytest.raises(ValueError, match=f"Muon: group 1 has '{key}', .* mean {option}"):
            Muon([{"params": parameters((4, 6))}, {"params": parameters((4, 6)), key: 3}])
        for place in ({"muon": {key: 3}}, {"adamw": {key: 3}}, {"assign": {"weight": {key: 3}}}):
            with pytest.raises(ValueError, match=rf"param_groups: .* has '{key}', .* mean {option}"):
                param_groups(torch.nn.Linear(4, 6), **place)
    optimiser = Muon([{"params": parameters((4, 6)), "name": "layers", "lr_scale": 0.5, "layer_id": 3}])
    torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=3)  # stores keys of its own
    Muon(optimiser.param_groups)
    optimiser.load_state_dict(optimiser.state_dict())


def test_state_of_another_parameter_or_algorithm_is_refused_by_name():
    def build(shape, algorithm):
        (p,) = parameters(shape)
        optimiser = Muon([{"params": [("fc.weight", p)], "algorithm": algorithm}])
        run(optimiser, 1)
        return optimiser

    muon, adamw, other = build((4, 6), "muon"), build((4, 6), "adamw"), build((6, 4), "muon")
    with pytest.raises(ValueError, match=r"'fc.weight' has shape \(4, 6\); its momentum_buffer .* shape \(6, 4\)"):
        muon.load_state_dict(other.state_dict())
    state = adamw.state_dict()
    del state["param_groups"][0]["algorithm"]
    with pytest.raises(ValueError, match=r"'fc.weight' is under muon, whose state is momentum_buffer; .* exp_avg"):
        muon.load_state_dict(state)
    state = muon.state_dict()
    del state["param_groups"][0]["algorithm"]
    with pytest.raises(ValueError, match=r"'fc.weight' is under adamw, whose state is exp_avg"):
        adamw.load_state_dict(state)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        muon.load_state_dict({"state": {}, "param_groups": []})


def test_errors_name_the_parameter():
    model = small_model()
    with pytest.raises(ValueError, match=r"parameter '0.bias' of shape \(8,\) is not a matrix.*algorithm=\"adamw\""):
        Muon(model.named_parameters())
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 of shape \(8,\) is not a matrix"):
        Muon(model.parameters())
    optimiser = Muon([model[0].weight])
    with pytest.raises(ValueError, match=r"parameter 0 of group 1 of shape \(3,\) is not a matrix"):
        optimiser.add_param_group({"params": model[2].bias})
    with pytest.raises(ValueError, match=r"8 outputs of parameter '0.weight' of shape .* are not 3 equal blocks"):
        Muon([("0.weight", model[0].weight)], split=3)
    with pytest.raises(
        ValueError, match=r"8 outputs of parameter '0.weight' .* are not the sum 9 of split=\(5, 2, 2\)"
    ):
        Muon([("0.weight", model[0].weight)], split=(5, 2, 2))
    with pytest.raises(ValueError, match=r"inputs of parameter 1 of group 0 .* the sum 3 of split_inputs=\(1, 2\)"):
        Muon(parameters((4, 3), (4, 5)), split_inputs=(1, 2))
    with pytest.raises(ValueError, match=r"8 outputs of parameter '0.weight' .* are not the sum 9"):
        Muon([("0.weight", model[0].weight)]).load_state_dict(
            {"state": {}, "param_groups": [{"params": [0], "split": (5, 4)}]}
        )


def without_values():
    yield "meta", contextlib.nullcontext
    from torch._subclasses.fake_tensor import FakeTensorMode

    yield "cpu", FakeTensorMode


@pytest.mark.slow
@pytest.mark.parametrize(("device", "mode"), list(without_values()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_without_values_take_steps(dtype, device, mode):
    """As with torch's own Muon, for tools that only ask for shapes and memory."""
    for options in (
        {},
        {"schedule": "you"},
        {"tol": 0.05},
        {"ns_steps": 3},
        {"precision": "half"},
        {"lr": 0.1},
    ):
        with mode():
            given = {k: torch.tensor(v, device=device) if k == "lr" else v for k, v in options.items()}
            tall, wide, vector = (
                torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) for shape in ((8, 4), (4, 8), (5,))
            )
            optimiser = Muon([{"params": [tall, wide]}, {"params": [vector], "algorithm": "adamw"}], **given)
            for p in (tall, wide, vector):
                p.grad = torch.empty_like(p)
            for _ in range(2):
                optimiser.step()
            assert optimiser.state[tall]["momentum_buffer"].shape == (8, 4)


def test_masked_tensors_and_integers_are_refused():
    import warnings

    import matsign

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masked = torch.masked.masked_tensor(torch.eye(3), torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match="MaskedTensor"):
        matsign.msign(masked)
    with pytest.raises(TypeError, match=r"parameter 0 of group 0 has dtype torch.int64"):
        Muon([torch.nn.Parameter(torch.ones(3, 3, dtype=torch.int64), requires_grad=False)])
