"""matsign.optim.Muon(warm=True): momenta that move slowly start from the step before, with the same steps to the tolerance."""

import copy

import pytest

torch = pytest.importorskip("torch")

from matsign.optim import Muon  # noqa: E402

N = 128
TOL = 1e-2
OPTIONS = {"lr": 1.0, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "tol": TOL}


def gradients(speed, steps, dtype=torch.float32, shape=(N, N)):
    """Matrices with singular values over four orders of magnitude that move by `speed` in each step."""
    generator = torch.Generator().manual_seed(0)
    m, velocity = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0, -4, shape[-1], dtype=torch.float64)
    velocity = speed * velocity * scales
    return [(m * scales + k * velocity).to(dtype) for k in range(steps)]


def take(optimiser, p, gradient):
    """A step of size one, and the change of the parameter."""
    p.grad, before = gradient.clone(), p.detach().clone()
    optimiser.step()
    return before - p.detach()


def vectors(optimiser, p):
    return optimiser.state[p].get("singular_vectors")


def error(step, momentum):
    """The distance of a step from msign, in singular values above a thousandth, relative to the norm of msign."""
    step, momentum = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (step, momentum))
    u, s, vh = torch.linalg.svd(momentum, full_matrices=False)
    kept = (s > 1e-3 * s[..., :1])[..., None, :]
    return (torch.linalg.matrix_norm((step @ vh.mH - u) * kept) / kept.sum(-1)[..., 0] ** 0.5).max()


@pytest.mark.parametrize(
    ("dtype", "shape"), [(torch.float32, (N, N)), (torch.bfloat16, (2, N, N + 32)), (torch.complex64, (N + 32, N))]
)
def test_a_slow_momentum_starts_warm_and_takes_the_steps_of_msign(dtype, shape):
    p = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
    optimiser = Muon([p], warm=True, batch_axes=len(shape) - 2, **OPTIONS)
    errors, warm = [], 0
    for k, gradient in enumerate(gradients(1e-3, 45, dtype, shape)):
        p.data.zero_()
        before = vectors(optimiser, p)
        step = take(optimiser, p, gradient)
        warm += before is not None and optimiser.state[p]["warm"][2] > 0
        if k % 5 == 4:
            scale = max(1, shape[-2] / shape[-1]) ** 0.5
            errors.append(error(step / scale, optimiser.state[p]["momentum_buffer"]))
    assert max(errors) < TOL
    assert warm > 10


def test_a_fast_momentum_and_unfit_shapes_take_the_cold_steps():
    ps = [torch.nn.Parameter(torch.zeros(N, m)) for m in (N, N, 2 * N)]
    optimisers = [Muon(ps, warm=True, **OPTIONS), Muon(copied := copy.deepcopy(ps), **OPTIONS)]
    for k in range(6):
        for params in (ps, copied):
            for p in params:
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(k))
        for optimiser in optimisers:
            optimiser.step()
    assert all(torch.equal(p, q) for p, q in zip(ps, copied, strict=True))
    assert all(vectors(optimisers[0], p) is None for p in ps)


def test_a_jump_goes_cold_and_nan_spoils_its_own_matrix_alone():
    p = torch.nn.Parameter(torch.zeros(3, N, N))
    optimiser = Muon([p], warm=True, batch_axes=1, **OPTIONS | {"momentum": 0.5})
    slow = gradients(1e-4, 40, shape=(3, N, N))
    for gradient in slow:
        take(optimiser, p, gradient)
    assert vectors(optimiser, p) is not None
    jump = slow[-1].clone()
    jump[1], jump[2] = 100 * torch.randn(N, N, generator=torch.Generator().manual_seed(1)), 0
    step = take(optimiser, p, jump)
    assert error(step, optimiser.state[p]["momentum_buffer"]) < TOL
    for _ in range(2):
        jump[0] = torch.nan
        step = take(optimiser, p, jump)
        assert step[0].isnan().all()
        assert error(step[1:], optimiser.state[p]["momentum_buffer"][1:]) < TOL


def test_a_resumed_run_has_the_same_bits_and_a_state_without_starts_goes_cold():
    p = torch.nn.Parameter(torch.zeros(N, N, dtype=torch.bfloat16))
    optimiser = Muon([p], warm=True, momentum_dtype="float32", **OPTIONS)
    slow = gradients(1e-3, 42, torch.bfloat16)
    for gradient in slow[:40]:
        take(optimiser, p, gradient)
    saved, weights = copy.deepcopy(optimiser.state_dict()), p.detach().clone()
    expected = [take(optimiser, p, gradient) for gradient in slow[40:]]
    assert saved["state"][0]["singular_vectors"].dtype == torch.float32

    def resume(state, **options):
        q = torch.nn.Parameter(weights.clone())
        other = Muon([q], momentum_dtype="float32", **OPTIONS | options)
        other.load_state_dict(copy.deepcopy(state))
        return other, q

    other, q = resume(saved, warm=True)
    assert all(torch.equal(take(other, q, g), x) for g, x in zip(slow[40:], expected, strict=True))
    for name in ("singular_vectors", "warm"):
        saved["state"][0].pop(name)
    other, q = resume(saved, warm=True)
    assert vectors(other, q) is None
    take(other, q, slow[40])
    assert vectors(other, q) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "warm=True needs tol of at least 1e-3"),
        ({"tol": 1e-4}, "warm=True needs tol of at least 1e-3"),
        ({"tol": 1e-2, "capturable": True}, "cannot be combined with capturable=True"),
        ({"tol": 1e-2, "manifold": "stiefel"}, "warm=True has no meaning on a manifold"),
        ({"tol": 1e-2, "warm": "yes"}, "warm must be True or False, got 'yes'"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        Muon([torch.nn.Parameter(torch.zeros(4, 4))], **{"warm": True} | options)


def test_a_state_of_another_shape_changes_nothing():
    p = torch.nn.Parameter(torch.zeros(N, N))
    optimiser = Muon([p], warm=True, **OPTIONS)
    take(optimiser, p, torch.eye(N))
    state = copy.deepcopy(optimiser.state_dict())
    state["state"][0]["singular_vectors"] = torch.zeros(7)
    with pytest.raises(ValueError, match="singular_vectors"):
        optimiser.load_state_dict(state)
    assert vectors(optimiser, p) is None
