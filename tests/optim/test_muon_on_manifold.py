"""matsign.optim.muon_on_manifold: the trajectory of PyTorch's Muon, on the manifold to rounding."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from matsign.optim import MatrixAxes, muon_on_manifold  # noqa: E402

pytestmark = pytest.mark.compiles


def distance(manifold, w, radius):
    """How far singular values are from those of the manifold, relative to the radius."""
    values = np.linalg.svd(np.asarray(w, float), compute_uv=False) / radius
    return abs((values if manifold == "stiefel" else values[..., :1]) - 1).max()


@pytest.mark.parametrize("manifold", ["stiefel", "spectral_sphere"])
def test_the_trajectory_is_that_of_torch_and_stays_on_the_manifold(manifold, rng):
    torch = pytest.importorskip("torch")
    from matsign.optim import Muon

    shapes = {"heads": (3, 2, 4), "wide": (3, 5)}
    start = {k: rng.standard_normal(s).astype("float32") for k, s in shapes.items()}
    target = {k: rng.standard_normal(s).astype("float32") for k, s in shapes.items()}
    axes = {"heads": MatrixAxes(inputs=0, outputs=(1, 2)), "wide": None}
    transformation = muon_on_manifold(lambda k: 0.1 / (1 + k), manifold, radius=2.0, tol=1e-6, axes=axes)
    ours = {k: jnp.asarray(w) for k, w in start.items()}
    theirs = [torch.nn.Parameter(torch.from_numpy(w.reshape(w.shape[0], -1).T.copy())) for w in start.values()]
    aims = [torch.from_numpy(w.reshape(w.shape[0], -1).T.copy()) for w in target.values()]
    optimiser = Muon(theirs, lr=0.1, manifold=manifold, radius=2.0, tol=1e-6)
    state, update = transformation.init(ours), jax.jit(transformation.update)
    for k in range(6):
        gradients = {name: w - target[name] for name, w in ours.items()}
        updates, state = update(gradients, state, ours)
        ours = {name: w + updates[name] for name, w in ours.items()}
        optimiser.param_groups[0]["lr"] = 0.1 / (1 + k)
        for p, aim in zip(theirs, aims, strict=True):
            p.grad = p.detach() - aim
        optimiser.step()
        for w, p in zip(ours.values(), theirs, strict=True):
            matrix = np.asarray(w).reshape(w.shape[0], -1).T
            assert distance(manifold, matrix, 2.0) < 1e-6
            assert np.linalg.norm(matrix - p.detach().numpy()) < 1e-3  # both to the gap


def test_a_leaf_that_is_not_finite_is_nan_and_no_other(rng):
    params = {"good": jnp.eye(4, 3), "bad": jnp.eye(4, 3), "still": jnp.eye(4, 3), "empty": jnp.zeros((0, 3))}
    g = rng.standard_normal((4, 3)).astype("float32")
    gradients = {"good": g, "bad": jnp.asarray(g).at[0, 0].set(jnp.nan), "still": 0 * g, "empty": jnp.zeros((0, 3))}
    transformation = muon_on_manifold(0.1, "stiefel")
    updates, _ = transformation.update(gradients, transformation.init(params), params)
    assert np.isnan(updates["bad"]).all()
    assert distance("stiefel", params["good"] + updates["good"], 1) < 1e-6
    assert abs(updates["still"]).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((0.1, "sphere"), {}, "manifold must be one of None, 'stiefel', 'spectral_sphere', got 'sphere'"),
        ((0.1, None), {}, "scale_by_msign has no manifold"),
        ((-1.0, "stiefel"), {}, "learning_rate must be a number of at least 0 or a schedule, got -1.0"),
        ((0.1, "stiefel"), {"radius": -2}, "radius must be a positive number, got -2"),
        ((0.1, "stiefel"), {"tol": 1e-9}, "tol is the duality gap on a manifold, at least 1e-06, got 1e-09"),
        ((0.1, "stiefel"), {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ((0.1, "stiefel"), {"nesterov": "no"}, "nesterov must be True or False, got 'no'"),
    ],
)
def test_options_that_do_not_fit(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        muon_on_manifold(*arguments, **options)


def test_leaves_that_do_not_fit():
    ones, zeros = {"a": jnp.eye(3), "b": jnp.ones((3, 2))}, {"a": jnp.eye(3), "b": jnp.zeros((3, 2))}
    with pytest.raises(ValueError, match="leaf 'b' has dependent rows or columns"):
        muon_on_manifold(0.1, "stiefel").init(ones)
    with pytest.raises(ValueError, match="leaf 'b' has a zero matrix"):
        muon_on_manifold(0.1, "spectral_sphere").init(zeros)
    with pytest.raises(ValueError, match=r"leaf 'b' is so far from the manifold that rounding errors .* the radius 1;"):
        muon_on_manifold(0.1, "stiefel").init({"a": jnp.eye(3), "b": 1e17 * jnp.eye(3)})
    with pytest.raises(ValueError, match="leaf 'b' of shape"):
        muon_on_manifold(0.1, "stiefel").init({"b": jnp.ones(3)})
    transformation = muon_on_manifold(0.1, "stiefel")
    with pytest.raises(ValueError, match="needs the parameters"):
        transformation.update(jnp.eye(3), transformation.init(jnp.eye(3)))
