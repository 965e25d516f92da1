"""Muon on manifolds: weights stay there to working precision, for any layout; what does not fit is an error before a step."""

import copy

import pytest

torch = pytest.importorskip("torch")

from matsign import spectral_sphere_step, stiefel_step  # noqa: E402
from matsign.optim import Muon  # noqa: E402

MANIFOLDS = ["stiefel", "spectral_sphere"]


def parameter(*shape, dtype=torch.float64):
    p = torch.nn.Parameter(torch.randn(*shape, dtype=dtype))
    p.grad = torch.randn(*shape, dtype=dtype)
    return p


def distance(manifold, w, radius):
    """How far singular values are from those of the manifold, relative to the radius."""
    values = torch.linalg.svdvals(w.detach().double()) / radius
    return (values if manifold == "stiefel" else values[..., :1]).sub(1).abs().max().item()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("manifold", MANIFOLDS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_weights_stay_on_the_manifold(manifold, dtype, limit):
    layouts = [
        ((12, 4), {"split": 3}, lambda w: w.reshape(3, 4, 4)),
        ((2, 5, 3), {"batch_axes": 1}, lambda w: w),
        ((3, 8), {"outputs_last": True, "split": (5, 3)}, lambda w: w[:, :5]),
        ((4, 2, 1, 3), {}, lambda w: w.reshape(4, 6)),
    ]
    params = [parameter(*shape, dtype=dtype) for shape, _, _ in layouts]
    groups = [{"params": [p], **options} for p, (_, options, _) in zip(params, layouts, strict=True)]
    optimiser = Muon(groups, lr=0.1, manifold=manifold, radius=2.0)
    for _ in range(3):
        optimiser.step()
        for p, (_, _, matrices) in zip(params, layouts, strict=True):
            assert distance(manifold, matrices(p), 2.0) < limit


@pytest.mark.parametrize(("manifold", "step"), [("stiefel", stiefel_step), ("spectral_sphere", spectral_sphere_step)])
def test_a_step_is_that_of_the_function(manifold, step):
    p = parameter(6, 3)
    optimiser = Muon([p], lr=0.1, momentum=0.0, manifold=manifold, radius=3.0, tol=1e-6)
    optimiser.step()
    before, p.grad = p.detach().clone(), torch.randn_like(p)
    optimiser.step()
    moved = before / 3 - 0.1 * step(before / 3, p.grad, gap=1e-6).step
    if manifold == "stiefel":
        u, _, vh = torch.linalg.svd(moved, full_matrices=False)
        expected = 3 * u @ vh
    else:
        expected = 3 * moved / torch.linalg.matrix_norm(moved, 2)
    assert torch.dist(p, expected) < 1e-12


def test_other_groups_do_not_notice():
    plain, kept = parameter(4, 4), parameter(4, 4)
    other = copy.deepcopy(plain)
    other.grad = plain.grad.clone()
    Muon([{"params": [kept], "manifold": "stiefel"}, {"params": [plain]}], lr=0.1).step()
    Muon([other], lr=0.1).step()
    assert torch.equal(plain, other)


def test_a_gradient_that_is_not_finite_makes_its_own_parameter_nan():
    bad, good, still = parameter(4, 3), parameter(4, 3), parameter(4, 3)
    bad.grad[0, 0] = torch.nan
    still.grad.zero_()
    Muon([bad, good, still], manifold="stiefel").step()
    assert bad.isnan().all()
    assert distance("stiefel", torch.stack([good, still]), 1.0) < 1e-14


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_trains_to_a_lower_loss(manifold):
    x = torch.randn(40, 6)
    y = x @ torch.linalg.qr(torch.randn(6, 6))[0][:, :3]
    w = torch.nn.Parameter(torch.linalg.qr(torch.randn(6, 3))[0])
    optimiser = Muon([w], lr=0.1, manifold=manifold)
    for k in range(60):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - k / 60)
        loss = ((x @ w - y) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.02


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"manifold": "sphere"}, "manifold must be one of None, 'stiefel', 'spectral_sphere', got 'sphere'"),
        ({"manifold": "stiefel", "radius": 0.0}, "radius must be a positive number, got 0.0"),
        ({"radius": "large"}, "radius must be a positive number, got 'large'"),
        ({"manifold": "stiefel", "tol": 1e-9}, "tol is the duality gap on a manifold, at least 1e-06, got 1e-09"),
        ({"manifold": "stiefel", "schedule": "su"}, "schedule has no meaning on a manifold"),
        ({"manifold": "stiefel", "adjust_lr_fn": "original"}, "adjust_lr_fn has no meaning on a manifold"),
        ({"manifold": "stiefel", "capturable": True}, "capturable=True is not for groups on a manifold"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        Muon([parameter(4, 3)], **options)


def test_an_option_that_was_changed_later_is_checked_before_a_step():
    p = parameter(4, 3)
    before, optimiser = p.detach().clone(), Muon([p], manifold="stiefel")
    optimiser.param_groups[0]["manifold"] = "sphere"
    with pytest.raises(ValueError, match="manifold must be one of None, 'stiefel', 'spectral_sphere', got 'sphere'"):
        optimiser.step()
    assert torch.equal(p, before)


@pytest.mark.parametrize(
    ("manifold", "text"), [("stiefel", "dependent rows or columns"), ("spectral_sphere", "a zero matrix")]
)
def test_weights_without_a_nearest_point_are_refused_before_anything_changes(manifold, text):
    good, zero = parameter(4, 3), parameter(4, 3)
    before = good.detach().clone()
    zero.data[:, 1:] = 0
    zero.data[:, 0] = 0 if manifold == "spectral_sphere" else 1
    optimiser = Muon([("good", good), ("zero", zero)], manifold=manifold)
    with pytest.raises(ValueError, match=f"^Muon: parameter 'zero' has {text}"):
        optimiser.step()
    assert torch.equal(good, before)
    assert not optimiser.state


def test_a_saved_run_goes_on():
    p = parameter(5, 3)
    optimiser = Muon([p], manifold="stiefel", radius=2.0)
    optimiser.step()
    q = torch.nn.Parameter(p.detach().clone())
    other = Muon([q])
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert (other.param_groups[0]["manifold"], other.param_groups[0]["radius"]) == ("stiefel", 2.0)
    p.grad = torch.randn(5, 3, dtype=torch.float64)
    q.grad = p.grad.clone()
    optimiser.step()
    other.step()
    assert torch.equal(p, q)
