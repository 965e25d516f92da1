"""Run in a process with eight emulated devices by test_scale_by_msign_sharded.py; prints "ok NAME" for each check that holds."""

import math
import pickle
import re
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from matsign import msign
from matsign.optim import MatrixAxes, scale_by_msign

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
# One step, which compiles fast.
STEP = {"schedule": ((2.0, -1.5, 0.5),)}
# name: (shape, sharding, axes, number of leaves); each name has a shape of its own.
LAYOUTS = {
    "rows over all": ((16, 24), P(("d", "m")), MatrixAxes(), 3),
    "columns over all": ((16, 32), P(None, ("d", "m")), MatrixAxes(), 3),
    "rows and columns": ((8, 24), P("d", "m"), MatrixAxes(), 9),
    "rows, replicated": ((8, 16), P("m"), MatrixAxes(), 3),
    "replicated": ((8, 12), P(), MatrixAxes(), 3),
    "scanned": ((5, 16, 8), P(None, "d", "m"), MatrixAxes(), 1),
    "scanned, by layers": ((16, 12, 8), P(("d", "m")), MatrixAxes(), 1),
    "experts": ((4, 16, 8), P("d", None, "m"), MatrixAxes(), 1),
    "layers of experts": ((2, 4, 32, 8), P(None, "d", "m"), MatrixAxes(), 1),
    "heads": ((16, 4, 8), P("d", "m"), MatrixAxes(0, (1, 2)), 1),
    "heads, output": ((4, 8, 16), P("m", None, "d"), MatrixAxes((0, 1), 2), 1),
    "fused": ((24, 24), P("d", "m"), MatrixAxes(split=(12, 6, 6), split_inputs=2), 1),
    "tensor parallel": ((16, 16), P("d", "m"), MatrixAxes(), 2),
}


def mesh_of(kind, shape=(4, 2), names=("d", "m")):
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def put(tree, mesh, specs):
    return {k: jax.device_put(x, NamedSharding(mesh, specs[k])) for k, x in tree.items()}


def random(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.standard_normal(shape), jnp.float32) for k, shape in shapes.items()}


def collectives(compiled):
    found = re.findall(
        r" (all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(", compiled.as_text()
    )
    return {name: found.count(name) for name in found}


def assert_same(found, wanted, specs, mesh, atol):
    for k, x in found.items():
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, specs[k]), x.ndim), (k, x.sharding)
        if wanted is not None:
            np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(wanted[k], np.float64), atol=atol)


def reference(x, axes):
    """The update of one parameter by msign of NumPy."""
    inputs, outputs = (side if isinstance(side, tuple) else (side,) for side in axes[:2])
    x = np.asarray(x)
    rest = x.shape[: x.ndim - len(inputs) - len(outputs)]
    matrices = x.reshape((*rest, math.prod(x.shape[k] for k in inputs), math.prod(x.shape[k] for k in outputs)))
    if axes.split == 1:
        return (rate(matrices) * msign(matrices, **STEP)).reshape(x.shape)
    ends, half = np.cumsum(axes.split), len(matrices) // 2
    blocks = [[x[rows] for x in np.split(matrices, ends[:-1], 1)] for rows in (slice(half), slice(half, None))]
    return np.block([[rate(b) * msign(b, **STEP) for b in row] for row in blocks])


def rate(matrices):
    return max(1, matrices.shape[-1] / matrices.shape[-2]) ** 0.5


def layouts():
    """All in one program: the updates of one device, in the sharding of the parameters, with two all-to-alls a shape.

    None for layers that are sharded by layers alone, and one all-gather for what is replicated. The state is sharded alike.
    """
    shapes = {f"{name} {k}": layout[0] for name, layout in LAYOUTS.items() for k in range(layout[-1])}
    specs = {leaf: LAYOUTS[leaf[:-2]][1] for leaf in shapes} | {"tensor parallel 1": P("m", "d")}
    transformation = scale_by_msign(**STEP, axes=lambda path, shape: LAYOUTS[path[:-2]][2])
    for kind, wanted_counts in (
        (AUTO, {"all-to-all": 2 * (len(LAYOUTS) - 2), "all-gather": 1}),
        (EXPLICIT, {"all-to-all": 6}),
    ):
        if kind == EXPLICIT:
            shapes = {
                leaf: shape for leaf, shape in shapes.items() if leaf[:3] in ("exp", "hea", "ten") and "out" not in leaf
            }
        mesh, g = mesh_of(kind), random(shapes)
        sharded = put(g, mesh, specs)
        state = transformation.init(sharded)
        compiled = jax.jit(transformation.update).lower(sharded, state).compile()
        found, state = compiled(sharded, state)
        wanted = {leaf: reference(x, LAYOUTS[leaf[:-2]][2]) for leaf, x in g.items()}
        assert_same(found, wanted, specs, mesh, 5e-5)
        assert_same(state.momentum, None, specs, mesh, 0)
        assert collectives(compiled) == wanted_counts, collectives(compiled)


def parameters_decide():
    """Gradients are sharded in another way than parameters; the state is made in a compiled program, updates also without one."""
    specs = {"a": P("d", "m"), "b": P("m", "d")}
    g = random({"a": (16, 24), "b": (16, 24)})
    transformation = scale_by_msign(**STEP)
    wanted, _ = jax.jit(transformation.update)(g, transformation.init(g))
    for kind, other in ((AUTO, P()), (EXPLICIT, P(None, "d"))):
        mesh = mesh_of(kind)
        params, gradients = put(g, mesh, specs), put(g, mesh, dict.fromkeys(g, other))
        with jax.set_mesh(mesh):
            state = jax.jit(transformation.init)(params)
            found, after = jax.jit(transformation.update)(gradients, state, params)
        assert_same(found, wanted, specs, mesh, 5e-5)
        assert_same(after.momentum, None, specs, mesh, 0)
        found, after = transformation.update(put(g, mesh, {"a": P("m", "d"), "b": P("d", "m")}), state, params)
        assert_same(found, wanted, specs, mesh, 5e-5)
        assert_same(after.momentum, None, specs, mesh, 0)


def work_is_shared():
    """With as many matrices as fill the devices each computes its part; the work is measured by products."""
    g, mesh = random({str(k): (32, 64) for k in range(16)}), mesh_of(AUTO)
    flops = []
    for spec in (None, P("d"), P()):
        tree = g if spec is None else put(g, mesh, dict.fromkeys(g, spec))
        transformation = scale_by_msign(**STEP)
        compiled = jax.jit(transformation.update).lower(tree, transformation.init(tree)).compile()
        flops.append(compiled.cost_analysis()["flops"])
    assert max(flops[1:]) < 1.15 * flops[0] / 8, flops


def nan_stays():
    """Without jit, to a tolerance and in double precision, beside an empty leaf."""
    with jax.enable_x64(True):
        rng, mesh = np.random.default_rng(0), mesh_of(AUTO)
        g = {str(k): jnp.asarray(rng.standard_normal((16, 24))) for k in range(9)}
        g["3"] = g["3"].at[2, 5].set(jnp.nan)
        g["5"] = jnp.zeros((16, 24))
        g["empty"] = jnp.zeros((0, 24))
        sharded = put(g, mesh, dict.fromkeys(g, P("d", "m")))
        transformation = scale_by_msign(tol=1e-10)
        found, _ = transformation.update(sharded, transformation.init(sharded))
    assert all(bool(jnp.isnan(x).all()) if k == "3" else bool(jnp.isfinite(x).all()) for k, x in found.items())
    assert not found["5"].any()
    u = np.asarray(found["7"]) / 1.5**0.5
    assert np.linalg.norm(u @ u.T - np.eye(16)) < 1e-9


def meshes_that_differ():
    x = random({"a": (16, 24)})["a"]
    one, other = (NamedSharding(mesh_of(AUTO, *args), P("d")) for args in (((4, 2), ("d", "m")), ((8,), ("d",))))
    good = jax.device_put(x, one)
    transformation = scale_by_msign()
    state = transformation.init({"a": good, "b": {"c": x, "d": good}})
    for wrong in (jax.device_put(x, other), jax.device_put(x, jax.devices()[3])):
        tree = {"a": good, "b": {"c": wrong, "d": good}}
        for f in (transformation.init, lambda tree: transformation.update(tree, state)):
            with pytest.raises(ValueError, match=r"leaf 'b\.c' is on "):
                f(tree)
    with pytest.raises(ValueError, match="leaf 'a' is on Mesh"):
        transformation.update({"a": jax.device_put(x, other), "b": {"c": x, "d": x}}, state)


def resumed():
    """From a serialised state, on the same mesh with the same bits and on another one; momenta keep their dtype."""
    specs, g = {"a": P("d", "m"), "b": P("m", "d")}, random({"a": (16, 24), "b": (16, 24)})
    transformation = scale_by_msign(**STEP, momentum_dtype="bfloat16", bias_correction=True)
    update = jax.jit(transformation.update)

    def steps(tree, state, count):
        for _ in range(count):
            updates, state = update(tree, state)
        return updates, state

    mesh = mesh_of(AUTO)
    tree = put(g, mesh, specs)
    updates, _ = steps(tree, transformation.init(tree), 4)
    _, state = steps(tree, transformation.init(tree), 2)
    saved = pickle.dumps(jax.tree.map(np.asarray, state))
    for shape, atol in (((4, 2), 0.0), ((2, 4), 5e-5)):
        mesh = mesh_of(AUTO, shape)
        tree = put(g, mesh, specs)
        loaded = pickle.loads(saved)
        loaded = loaded._replace(momentum=put(loaded.momentum, mesh, specs))
        again, after = steps(tree, loaded, 2)
        assert after.momentum["a"].dtype == jnp.bfloat16
        assert_same(again, updates, specs, mesh, atol)


def training():
    """A scan of steps with gradients, and an ensemble under vmap: the same losses as on one device."""
    mesh, specs = mesh_of(AUTO), {"a": P("d", "m"), "b": P("m", "d")}
    w = random({"a": (16, 24), "b": (24, 16)})
    data = random({"x": (12, 32, 16)}, 1)["x"]
    transformation = scale_by_msign(**STEP)

    def step(carry, x):
        w, state = carry
        loss, g = jax.value_and_grad(lambda w: (((x @ w["a"]) @ w["b"] - x) ** 2).mean())(w)
        updates, state = transformation.update(g, state, w)
        return (jax.tree.map(lambda w, u: w - 0.02 * u, w, updates), state), loss

    run = jax.jit(lambda w, data: jax.lax.scan(step, (w, transformation.init(w)), data))
    (_, _), wanted = run(w, data)
    (last, _), losses = run(put(w, mesh, specs), jax.device_put(data, NamedSharding(mesh, P(None, "d"))))
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert_same(last, None, specs, mesh, 0)
    several = jax.device_put(jnp.stack([w["a"], 2 * w["a"][::-1]]), NamedSharding(mesh, P(None, "d", "m")))
    found = jax.jit(jax.vmap(lambda g: transformation.update(g, transformation.init(g))[0]))(several)
    assert_same({"a": found}, None, {"a": P(None, "d", "m")}, mesh, 0)
    np.testing.assert_allclose(found[0], found[1, ::-1], atol=5e-5)


CHECKS = (layouts, parameters_decide, work_is_shared, nan_stays, meshes_that_differ, resumed, training)

if __name__ == "__main__":
    for check in CHECKS:
        try:
            check()
            print("ok", check.__name__, flush=True)
        except Exception:
            print("failed", check.__name__, flush=True)
            traceback.print_exc(file=sys.stdout)
