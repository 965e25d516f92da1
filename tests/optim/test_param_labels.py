"""matsign.optim.param_labels: which leaves of a tree are matrices, and MatrixAxes for those whose axes are in another order."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from matsign import msign  # noqa: E402
from matsign.optim import MatrixAxes, param_labels, scale_by_msign  # noqa: E402
from matsign.optim.batching import Layout  # noqa: E402
from matsign.optim.jax_leaves import leaf_readings  # noqa: E402
from matsign.optim.matrix_axes import Reading  # noqa: E402

ROW = {"schedule": ((2.0, -1.5, 0.5),)}


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def labels_of(params, **options):
    return {row.name: (row.algorithm, row.reason) for row in param_labels(params, **options).assignments}


@pytest.fixture
def flax():
    """Parameters as Flax names them."""
    heads = {name: {"kernel": shape(16, 4, 8), "bias": shape(4, 8)} for name in ("query", "key", "value")}
    return {
        "Embed_0": {"embedding": shape(50, 16)},
        "attention": {**heads, "out": {"kernel": shape(4, 8, 16), "bias": shape(16)}},
        "LayerNorm_0": {"scale": shape(3, 16)},
        "Conv_0": {"kernel": shape(3, 3, 4, 8)},
        "Conv_1": {"kernel": shape(3, 3, 1, 8)},
        "Dense_0": {"kernel": shape(16, 32), "bias": shape(3, 32)},
        "Dense_1": {"kernel": shape(16, 50)},
        "gate": shape(1, 16, 1),
        "nothing": None,
    }


def test_rules(flax):
    assert labels_of(flax) == {
        "Embed_0.embedding": ("adamw", "embedding"),
        **{f"attention.{name}.kernel": ("muon", "attention") for name in ("query", "key", "value", "out")},
        **{f"attention.{name}.bias": ("adamw", "bias or gain") for name in ("query", "key", "value", "out")},
        "LayerNorm_0.scale": ("adamw", "norm"),
        "Conv_0.kernel": ("muon", "convolution"),
        "Conv_1.kernel": ("adamw", "depthwise"),
        "Dense_0.kernel": ("muon", "matrix"),
        "Dense_0.bias": ("adamw", "bias or gain"),
        "Dense_1.kernel": ("adamw", "head, of an embedding's shape"),
        "gate": ("adamw", "vector"),
    }


def test_other_names():
    """Of Haiku, Equinox, GPT-2 and Llama."""
    tree = {
        "wte": shape(50, 16),
        "lm_head": {"w": shape(16, 51)},
        "h": [{"ln_1": {"weight": shape(16, 1, 2)}, "mlp": {"w": shape(16, 64), "b": shape(2, 64)}}],
        "tok_embeddings": {"weight": shape(52, 16)},
        "heads": shape(4, 4),
    }
    assert {name: algorithm for name, (algorithm, _) in labels_of(tree).items()} == {
        "wte": "adamw",
        "lm_head.w": "adamw",
        "h.0.ln_1.weight": "adamw",
        "h.0.mlp.w": "muon",
        "h.0.mlp.b": "adamw",
        "tok_embeddings.weight": "adamw",
        "heads": "muon",
    }


def test_exceptions(flax):
    found = param_labels(flax, assign={"Dense_*.kernel": "adamw", "Dense_1.*": MatrixAxes(1, 0), "gate": "adamw"})
    assert {row.name: row.algorithm for row in found.assignments}["Dense_0.kernel"] == "adamw"
    assert found.axes("Dense_1.kernel", (16, 50)) == MatrixAxes(1, 0)
    assert found.axes("Dense_0.kernel", (16, 32)) is None
    assert "muon   Dense_1.kernel" in str(found)
    assert "inputs=1, outputs=0" in repr(found)
    assert "adamw: 10 parameters" in str(found)


@pytest.mark.parametrize(
    ("tree", "assign", "said"),
    [
        ({"up": shape(3, 4, 5)}, None, r"leaf 'up' of shape \(3, 4, 5\) has 3 axes.*MatrixAxes\(\)"),
        ({"up": shape(4, 5)}, {"down": "muon"}, "'down', which no leaf matches; paths are 'up'"),
        ({"up": shape(4, 5)}, {"up": "sgd"}, r"assign\['up'\] must be"),
        ({"up": shape(4, 5)}, [1], "assign must be a dict"),
        ({"up": shape(4, 5)}, {"up": MatrixAxes(0, 0)}, "leaf 'up' .* has an axis twice"),
        ({"up": shape(4, 5)}, {"up": MatrixAxes(0, 2)}, "axes of leaf 'up'"),
        ({"up": shape(4, 5)}, {"up": MatrixAxes(0, 1, split=2)}, "5 outputs of leaf 'up' .* are not 2 equal blocks"),
        ({"up": shape(4, 5)}, {"up": MatrixAxes(0, 1, split=0)}, "leaf 'up': split must be"),
        ({"bias": shape(4)}, {"bias": "muon"}, "leaf 'bias' of shape .* is not a matrix"),
        ({"a": {"b": shape(4, 4)}, "a.b": shape(4, 4)}, None, "two leaves have the same path"),
    ],
)
def test_errors_name_the_leaf(tree, assign, said):
    with pytest.raises(ValueError, match=said):
        param_labels(tree, assign=assign)


def test_a_tree_with_other_leaves_has_no_labels():
    labels = param_labels({"up": shape(4, 5)})
    with pytest.raises(ValueError, match="has a leaf 'down'"):
        labels({"down": shape(4, 5)})


@pytest.mark.compiles
def test_with_optax(rng):
    """In multi_transform and partition; the update is that of the matrices."""
    optax = pytest.importorskip("optax")
    params = {
        "query": jnp.asarray(rng.standard_normal((4, 2, 3)), jnp.float32),
        "layers": jnp.asarray(rng.standard_normal((3, 2, 4)), jnp.float32),
        "bias": jnp.ones(4),
    }
    labels = param_labels(params, assign={"query": MatrixAxes(0, (1, 2)), "layers": MatrixAxes(0, 2)})
    muon = scale_by_msign(axes=labels.axes, **ROW)
    query = msign(np.asarray(params["query"]).reshape(4, 6), **ROW) * np.sqrt(6 / 4)
    layers = np.stack([msign(x, **ROW) * np.sqrt(4 / 3) for x in np.moveaxis(np.asarray(params["layers"]), 1, 0)], 1)
    transformation = optax.multi_transform({"muon": muon, "adamw": optax.sgd(0.1)}, labels)
    updates, _ = jax.jit(transformation.update)(params, transformation.init(params), params)
    np.testing.assert_allclose(updates["query"].reshape(4, 6), query, atol=1e-5)
    np.testing.assert_allclose(updates["layers"], layers, atol=1e-5)
    np.testing.assert_allclose(updates["bias"], -0.1)
    assert labels(params) == {"query": "muon", "layers": "muon", "bias": "adamw"}


def test_axes_as_a_tree_or_a_function():
    tree, query = {"attention": {"query": shape(4, 2, 3)}, "up": shape(3, 5)}, MatrixAxes(0, (1, 2))
    default = Layout(outputs_last=True)
    for axes in (
        {"attention": query},
        {"attention": {"query": query}, "up": None},
        lambda path, shape: query if path == "attention.query" and shape == (4, 2, 3) else None,
    ):
        found = leaf_readings(tree, axes, default)
        assert found == (Reading(None, default._replace(output_axes=2)), Reading(None, default))
    (moved,) = leaf_readings(tree["attention"], MatrixAxes(2, 0, split=2), default)
    x = np.arange(24).reshape(4, 2, 3)
    assert moved.order == (1, 2, 0)
    assert moved.layout == Layout(2, 1, True)
    np.testing.assert_array_equal(moved.restore(moved.arrange(x)), x)


def test_axes_where_optax_leaves_a_leaf_out():
    optax = pytest.importorskip("optax")
    tree = {"up": shape(3, 5), "bias": optax.MaskedNode(), "rest": optax.MaskedNode()}
    assert len(leaf_readings(tree, {"rest": {"a": MatrixAxes()}, "bias": MatrixAxes()}, Layout(outputs_last=True))) == 1


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"down": MatrixAxes()}, r"axes has \['down'\]"),
        ({"up": {"kernel": MatrixAxes()}}, r"axes has \['up'\]\['kernel'\]"),
        ({"up": 3}, "must be MatrixAxes or None for leaf 'up'"),
        (lambda path, shape: path, "must be MatrixAxes or None for leaf 'up'"),
        (MatrixAxes(0, (1, 2)), "axes of leaf 'up'"),
    ],
)
def test_axes_that_do_not_fit(axes, said):
    with pytest.raises(ValueError, match=said):
        scale_by_msign(axes=axes).init({"up": jnp.eye(3)})
