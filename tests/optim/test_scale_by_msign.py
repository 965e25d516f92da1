"""matsign.optim.scale_by_msign: in a chain as with optax, under jit, against the polar factor."""

import math
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from matsign.optim import scale_by_msign  # noqa: E402

pytestmark = pytest.mark.compiles


def polar(x):
    u, _, vh = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    return u @ vh


@pytest.fixture
def tree(rng):
    """Gradients of a small network: two layers of one shape, one transposed, a convolution, and a None."""
    f32 = np.float32
    return {
        "layers": [{"kernel": jnp.asarray(rng.standard_normal((6, 9)).astype(f32))} for _ in range(2)],
        "back": jnp.asarray(rng.standard_normal((9, 6)).astype(f32)),
        "convolution": jnp.asarray(rng.standard_normal((2, 2, 3, 8)).astype(f32)),
        "none": None,
    }


def update(transformation, gradients):
    return jax.jit(transformation.update)(gradients, transformation.init(gradients))


def test_every_leaf_is_orthogonal(tree):
    updates, state = update(scale_by_msign(tol=1e-3), tree)
    assert jax.tree.structure(updates) == jax.tree.structure(tree) == jax.tree.structure(state.momentum)
    for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(tree), strict=True):
        flat = g.reshape(-1, g.shape[-1])
        scale = math.sqrt(max(1, flat.shape[1] / flat.shape[0]))
        assert u.dtype == g.dtype
        assert np.linalg.norm(u.reshape(flat.shape) - scale * polar(flat)) < 0.01


def test_momentum_is_that_of_muon(tree):
    """Without jit."""
    transformation, tree = scale_by_msign(0.8, tol=1e-3), {"back": tree["back"]}
    g = [tree, {"back": tree["back"][::-1]}]
    _, state = transformation.update(g[0], transformation.init(g[0]))
    updates, state = transformation.update(g[1], state, g[0])
    first, second = (np.asarray(x["back"], np.float64) for x in g)
    momentum = 0.8 * (0.2 * first) + 0.2 * second
    assert np.allclose(state.momentum["back"], momentum, atol=1e-6)
    assert np.linalg.norm(updates["back"] - polar(0.2 * second + 0.8 * momentum)) < 0.01
    plain, _ = update(scale_by_msign(0.8, nesterov=False, tol=1e-3), tree)
    assert np.linalg.norm(plain["back"] - polar(first)) < 0.01


def test_the_same_coefficients_give_the_step_of_muon(tree):
    updates, _ = update(scale_by_msign(ns_steps=5), tree)
    x = np.asarray(tree["back"], np.float64)
    x = x / np.linalg.norm(x)
    for _ in range(5):
        r = x @ x.T
        x = 3.4445 * x + (-4.7750 * r + 2.0315 * r @ r) @ x
    assert np.allclose(updates["back"], x, atol=1e-5)


def test_layouts(rng):
    g = jnp.asarray(rng.standard_normal((3, 10, 8)), jnp.float32)
    heads, _ = update(scale_by_msign(batch_axes=1, split=2, tol=1e-3), g)
    for u, x in zip(heads, g, strict=True):
        for k in (0, 4):
            assert np.linalg.norm(u[:, k : k + 4] - polar(x[:, k : k + 4])) < 0.01
    parts, _ = update(scale_by_msign(batch_axes=1, split=2, split_inputs=2, tol=1e-3), g)
    for u, x in zip(parts, g, strict=True):
        for rows in (slice(5), slice(5, None)):
            for columns in (slice(4), slice(4, None)):
                assert np.linalg.norm(u[rows, columns] - polar(x[rows, columns])) < 0.02
    first, _ = update(scale_by_msign(outputs_last=False, tol=1e-3), g)
    assert np.linalg.norm(first.reshape(3, 80) - polar(g.reshape(3, 80))) < 0.01


def test_blocks_of_unequal_sizes(rng):
    """On the last axis, where JAX has the outputs, or on the first; each with the rate of its shape."""
    g = jnp.asarray(rng.standard_normal((2, 5, 16)), jnp.float32)
    found, _ = update(scale_by_msign(batch_axes=1, split=(10, 3, 3), tol=1e-3), g)
    for u, x in zip(found, g, strict=True):
        for part, rate in ((slice(10), math.sqrt(2)), (slice(10, 13), 1), (slice(13, None), 1)):
            assert np.linalg.norm(u[:, part] - rate * polar(x[:, part])) < 0.03
    first, _ = update(scale_by_msign(outputs_last=False, split=(10, 6), split_inputs=[2, 3], tol=1e-3), g[0].T)
    for rows in (slice(10), slice(10, None)):
        for columns in (slice(2), slice(2, None)):
            block = g[0].T[rows, columns]
            rate = math.sqrt(block.shape[0] / block.shape[1])
            assert np.linalg.norm(first[rows, columns] - rate * polar(block)) < 0.05


def test_zeros_and_nan_stay_where_they_are(tree):
    gradients = {**tree, "back": jnp.zeros((9, 6))}
    gradients["layers"][0]["kernel"] = gradients["layers"][0]["kernel"].at[1, 1].set(jnp.nan)
    updates, _ = update(scale_by_msign(), gradients)
    assert bool((updates["back"] == 0).all())
    assert bool(jnp.isnan(updates["layers"][0]["kernel"]).all())
    assert bool(jnp.isfinite(updates["layers"][1]["kernel"]).all())


def test_equal_and_transposed_shapes_take_one_call(tree, monkeypatch):
    from matsign.optim import batching

    calls, transformation = [], scale_by_msign()
    monkeypatch.setattr(batching, "orthogonalise", lambda x, how: calls.append(tuple(x.shape)) or x)
    update(transformation, tree)
    assert sorted(calls) == [(1, 8, 12), (3, 6, 9)]


def test_half_precision_and_rates(rng):
    g = jnp.asarray(rng.standard_normal((4, 16)), jnp.bfloat16)
    updates, state = update(scale_by_msign(tol=1e-2), g)
    assert updates.dtype == state.momentum.dtype == jnp.bfloat16
    assert np.linalg.norm(np.asarray(updates, np.float64) - 2 * polar(g)) < 0.1
    updates, _ = update(scale_by_msign(adjust_lr_fn="match_rms_adamw", tol=1e-2), g)
    assert np.linalg.norm(np.asarray(updates, np.float64) - 0.8 * polar(g)) < 0.05


def test_a_loop_of_steps_under_scan_descends(rng):
    a, b = (jnp.asarray(rng.standard_normal((8, 8)), jnp.float32) for _ in range(2))
    transformation = scale_by_msign()

    def step(carry, rate):
        w, state = carry
        loss, g = jax.value_and_grad(lambda w: jnp.sum((w @ a - b) ** 2))(w)
        u, state = transformation.update(g, state, w)
        return (w - rate * u, state), loss

    w = jnp.zeros((8, 8), jnp.float32)
    _, losses = jax.lax.scan(step, (w, transformation.init(w)), jnp.geomspace(0.5, 0.005, 60, dtype="float32"))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_momentum_in_a_dtype_of_its_own(rng, nesterov):
    """Rounded between updates, not within them; the state is a tree to save, and an update goes on from it."""
    gradients = [{"kernel": jnp.asarray(rng.standard_normal((6, 4)), jnp.float32)} for _ in range(3)]
    transformation = scale_by_msign(0.9, nesterov, momentum_dtype=jnp.bfloat16, tol=1e-3)
    state = transformation.init(gradients[0])
    assert state.momentum["kernel"].dtype == jnp.bfloat16
    momentum = np.zeros((6, 4), np.float32)
    for g in gradients:
        saved = jax.tree.map(np.asarray, state)
        updates, state = jax.jit(transformation.update)(g, state)
        assert updates["kernel"].dtype == jnp.float32
        assert state.momentum["kernel"].dtype == jnp.bfloat16
        again, _ = jax.jit(transformation.update)(g, saved)
        np.testing.assert_array_equal(again["kernel"], updates["kernel"])
        x = np.asarray(g["kernel"])
        mixed = 0.9 * momentum + 0.1 * x
        assert np.linalg.norm(updates["kernel"] - polar(0.9 * mixed + 0.1 * x if nesterov else mixed)) < 0.01
        momentum = np.asarray(jnp.asarray(mixed, jnp.bfloat16), np.float32)
        np.testing.assert_allclose(np.asarray(state.momentum["kernel"], np.float32), momentum, rtol=2**-7, atol=1e-6)


def test_a_momentum_in_bfloat16_is_that_of_optax(tree):
    optax = pytest.importorskip("optax")
    if not hasattr(getattr(optax, "contrib", None), "scale_by_muon"):
        pytest.skip("this optax has no Muon")
    ours, theirs = scale_by_msign(momentum_dtype="bfloat16"), optax.contrib.scale_by_muon(mu_dtype="bfloat16")
    one, two = ours.init(tree["back"]), theirs.init(tree["back"])
    for _ in range(3):
        _, one = ours.update(tree["back"], one)
        _, two = theirs.update(tree["back"], two)
    assert one.momentum.dtype == two.mu.dtype == jnp.bfloat16
    # optax also rounds the product of the factor and the old momentum.
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (one.momentum, two.mu)), rtol=2**-6, atol=1e-4)


@pytest.mark.parametrize("nesterov", [True, False])
def test_with_bias_correction_the_updates_are_those_of_optax(rng, nesterov):
    optax = pytest.importorskip("optax")
    if not hasattr(getattr(optax, "contrib", None), "muon"):
        pytest.skip("this optax has no Muon")
    shapes = {"wide": (6, 9), "tall": (9, 6)}
    steps = [{k: jnp.asarray(rng.standard_normal(shape), jnp.float32) for k, shape in shapes.items()} for _ in range(6)]
    options = {"nesterov": nesterov}
    theirs = optax.contrib.muon(0.1, **options)
    corrected, plain = (
        optax.chain(scale_by_msign(ns_steps=5, bias_correction=c, **options), optax.scale_by_learning_rate(0.1))
        for c in (True, False)
    )
    found = []
    for transformation in (theirs, corrected, plain):
        state, rows = transformation.init(steps[0]), []
        for g in steps:
            updates, state = jax.jit(transformation.update)(g, state, g)
            rows.append(updates)
        found.append(rows)
    for k, (wanted, ours, without) in enumerate(zip(*found, strict=True)):
        for name in shapes:
            np.testing.assert_allclose(ours[name], wanted[name], atol=1e-5)
        apart = np.linalg.norm(without["wide"] - wanted["wide"])
        # Without it the second step differs most; the first has one gradient, whatever its factor.
        assert (apart > 0.01) if nesterov and k == 1 else (apart < 1e-4 or (nesterov and k > 1))


def test_bias_correction_counts_in_the_state(rng):
    g = jnp.asarray(rng.standard_normal((4, 6)), jnp.bfloat16)
    transformation = scale_by_msign(bias_correction=True)
    state, update = transformation.init(g), jax.jit(transformation.update)
    for k in range(3):
        assert int(state.step) == k
        updates, state = update(g, state)
        assert updates.dtype == state.momentum.dtype == jnp.bfloat16
    late = state._replace(step=jnp.asarray(2**31 - 2, jnp.int32))
    updates, late = update(g, late)
    assert bool(jnp.isfinite(updates).all())
    assert scale_by_msign().init(g).step is None


def test_in_a_chain_of_optax(tree):
    optax = pytest.importorskip("optax")
    chain = optax.chain(scale_by_msign(tol=1e-3), optax.add_decayed_weights(0.1), optax.scale_by_learning_rate(0.5))
    updates, _ = jax.jit(chain.update)(tree, chain.init(tree), tree)
    wanted = -0.5 * (polar(tree["back"]) + 0.1 * np.asarray(tree["back"]))
    assert np.linalg.norm(updates["back"] - wanted) < 0.01


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="momentum"):
        scale_by_msign(1.0)
    with pytest.raises(ValueError, match="adjust_lr_fn"):
        scale_by_msign(adjust_lr_fn="other")
    with pytest.raises(ValueError, match="give one of"):
        scale_by_msign(tol=0.1, schedule="you")
    with pytest.raises(ValueError, match="not a matrix"):
        scale_by_msign().init({"bias": jnp.zeros(3)})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"momentum": math.nan}, "momentum must be in"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"momentum": "0.9"}, "momentum must be in"),
        ({"momentum": jnp.ones(2)}, "momentum must be in"),
        ({"momentum": -(10**400)}, "momentum must be in"),
        ({"nesterov": "yes"}, "nesterov must be True or False"),
        ({"outputs_last": None}, "outputs_last must be True or False"),
        ({"bias_correction": 2}, "bias_correction must be True or False"),
        ({"split": 1.5}, "split must be a whole number"),
        ({"split_inputs": 0}, "split_inputs must be a whole number"),
        ({"batch_axes": "1"}, "batch_axes must be a whole number"),
        ({"steps": 2**63}, "steps must be"),
        ({"schedule": [(math.inf, 1.0)]}, "a schedule is rows"),
        ({"schedule": 7}, "a schedule is rows"),
        ({"ns_coefficients": (1, math.nan, 1)}, "three numbers"),
        ({"ns_steps": 10**400}, "ns_steps must be"),
        ({"tol": 10**400}, "tol must be"),
        ({"adjust_lr_fn": 3}, "adjust_lr_fn must be"),
        ({"precision": 16}, "precision must be"),
        ({"momentum_dtype": "int32"}, "momentum_dtype must be"),
        ({"momentum_dtype": "half a float"}, "momentum_dtype must be"),
        ({"momentum_dtype": 16}, "momentum_dtype must be"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        scale_by_msign(**options)


def test_errors_name_the_leaf():
    with pytest.raises(ValueError, match=r"leaf 'dense.bias' of shape \(4,\) is not a matrix"):
        scale_by_msign().init({"dense": {"kernel": jnp.eye(4), "bias": jnp.ones(4)}})
    with pytest.raises(ValueError, match=r"6 outputs of leaf 'kernel' of shape .* are not 4 equal blocks"):
        scale_by_msign(split=4).init({"kernel": jnp.ones((3, 6))})
    with pytest.raises(ValueError, match=r"6 outputs of leaf 'kernel' .* are not the sum 5 of split=\(3, 2\)"):
        scale_by_msign(split=(3, 2)).init({"kernel": jnp.ones((3, 6))})


@pytest.mark.parametrize("other", [jnp.ones((1, 4)), jnp.ones((4, 6)), jnp.ones(()), jnp.ones((6, 4)) * 1j], ids=str)
def test_a_gradient_that_does_not_fit_its_momentum(other):
    transformation = scale_by_msign()
    state = transformation.init({"kernel": jnp.ones((6, 4))})
    with pytest.raises(
        ValueError, match=r"the gradient of leaf 'kernel' has shape .* and its momentum has shape \(6, 4\)"
    ):
        transformation.update({"kernel": other}, state)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_are_refused(dtype):
    with pytest.raises(ValueError, match=f"leaf 'kernel' has dtype {dtype}"):
        scale_by_msign().init({"kernel": jnp.ones((6, 4), dtype)})


def test_the_dtype_of_a_momentum_stays():
    transformation, gradient = scale_by_msign(steps=1), jnp.eye(6, 4, dtype="float32")
    state = transformation.init(gradient.astype("bfloat16"))
    update, state = jax.jit(transformation.update)(gradient, state)
    assert (update.dtype.name, state.momentum.dtype.name) == ("float32", "bfloat16")


def test_a_complex_leaf_has_no_real_momentum():
    with pytest.raises(ValueError, match=r"leaf 'kernel' has dtype complex"):
        scale_by_msign(momentum_dtype="float32").init({"kernel": jnp.eye(3) * 1j})


def test_a_momentum_that_is_traced(rng):
    """As from a schedule of the momentum."""
    tree = {"kernel": jnp.asarray(rng.standard_normal((6, 4)))}

    def step(momentum):
        transformation = scale_by_msign(momentum)
        return transformation.update(tree, transformation.init(tree))[0]

    for x, y in zip(
        *(jax.tree.leaves(f()) for f in (lambda: jax.jit(step)(0.9), jax.jit(lambda: step(0.9)))), strict=True
    ):
        np.testing.assert_allclose(x, y, atol=1e-4)


def test_it_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import jax.numpy as jnp; from matsign.optim import scale_by_msign\n"
        "t = scale_by_msign(); print(t.update(jnp.eye(3), t.init(jnp.eye(3)))[0].shape == (3, 3))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"], done.stderr
