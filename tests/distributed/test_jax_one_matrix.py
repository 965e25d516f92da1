"""JAX: one matrix sharded over the devices of a mesh, by products alone, on eight emulated devices."""

import re

import numpy as np
import pytest

import matsign
from processes import run

jax = pytest.importorskip("jax")

import jax.numpy as xp  # noqa: E402
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec  # noqa: E402

from matsign.backends.jax_distributed import COLUMNS, ROWS, Distributed, Grid, trace  # noqa: E402
from matsign.backends.jax_matrix_axes import grid_of  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.compiles]

# Optimisation by XLA takes longer than it saves in a single run.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
SHAPE = re.compile(r"\b(?:f32|f64|c64|c128|pred|s32)\[([\d,]+)\]")
N = 64


def emulate(rank, world, folder):
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_x64", True)


def place(x, kind, sizes, *axes):
    devices = jax.devices()[: np.prod(sizes)]
    mesh = jax.make_mesh(sizes, ("a", "b")[: len(sizes)], axis_types=(kind,) * len(sizes), devices=devices)
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))


def entries(shape):
    return int(np.prod([int(k) for k in shape.split(",")]))


def largest_array(program):
    return max(entries(shape) for shape in SHAPE.findall(program.as_text()))


def problems():
    """Functions with arrays, and the weights of a sum of the result, whose gradient is computed."""
    rng = np.random.default_rng(0)
    a, q, w = (rng.standard_normal((N, N)) for _ in range(3))
    far = 3 * np.sqrt(N) * np.eye(N)
    return {
        "msign": (matsign.msign, (a,), w),
        "mcsgn": (matsign.mcsgn, (a,), w),
        "sqrtm_pair": (lambda a: matsign.sqrtm_pair(a)[0], (a + far,), w),
        "solve_sylvester": (matsign.solve_sylvester, (a + far, a.T + far, q), w),
        "solve_continuous_lyapunov": (matsign.solve_continuous_lyapunov, (a - far, q), w),
    }


LAYOUTS = {
    "rows": (AxisType.Auto, (8,), "a"),
    "columns, explicit": (AxisType.Explicit, (4,), None, "a"),
    "both": (AxisType.Auto, (2, 4), "a", "b"),
    "both, in another order than the mesh": (AxisType.Explicit, (4, 2), "b", "a"),
    "rows over both, in another order": (AxisType.Auto, (1, 2), ("b", "a")),
}


def assert_in_parts(f, arrays, expected, layout, tol=1e-11):
    """The right value, sharded as the arrays, by a program in which no array of a device is larger than its part of a matrix,
    and temporaries are at most 6 n²/√p + 10 n²/p numbers."""
    devices = np.prod(LAYOUTS[layout][1])
    arrays = [place(x, *LAYOUTS[layout]) for x in arrays]
    program = jax.jit(f).lower(*arrays).compile(QUICKLY)
    assert largest_array(program) <= N * N / devices
    assert not [kind for _, kind in COLLECTIVE.findall(program.as_text()) if kind == "all-gather"]
    temporaries = program.memory_analysis().temp_size_in_bytes
    assert temporaries <= 8 * N * N * (6 / np.sqrt(devices) + 10 / devices), (layout, temporaries / 8 / N / N)
    for x, y in zip(jax.tree.leaves(program(*arrays)), jax.tree.leaves(expected), strict=True):
        assert x.sharding.is_equivalent_to(arrays[0].sharding, 2)
        np.testing.assert_allclose(x, y, atol=tol * np.abs(y).max())
    return program


def value_and_gradient(f, count):
    """The value and the cotangents of the arrays, for the cotangent that comes after them."""

    def call(*xs):
        result, pull = jax.vjp(f, *xs[:count])
        return result, pull(xs[count])

    return call


def assert_values():
    for name, layout in zip(problems(), LAYOUTS, strict=True):
        f, arrays, w = problems()[name]
        # Compilation takes seconds: the gradient of one function, on two devices, where the limit of memory is nearest.
        if name == "solve_continuous_lyapunov":
            f, arrays = value_and_gradient(f, len(arrays)), (*arrays, w)
        program = assert_in_parts(f, arrays, f(*map(xp.asarray, arrays)), layout)
        if name == "solve_sylvester":
            a, _, q = arrays
            assert np.isnan(program(*(place(x, *LAYOUTS[layout]) for x in (a, -a, q)))).all()  # it is singular


def gram_sums(program, k):
    """The number of all-reduces of k² numbers, and of all other collectives of more than a few."""
    sizes = [
        (max(map(entries, SHAPE.findall(shape)), default=1), kind)
        for shape, kind in COLLECTIVE.findall(program.as_text())
    ]
    large = [(size, kind) for size, kind in sizes if size > 16]
    grams = large.count((k * k, "all-reduce"))
    return grams, len(large) - grams


def assert_tall():
    m = np.random.default_rng(1).standard_normal((512, 128))
    for kind, options, most in (
        (AxisType.Auto, dict(steps=4), 1),
        (AxisType.Explicit, dict(steps=12, tol=1e-6), 2),
    ):
        x = place(m, kind, (8,), "a")
        program = jax.jit(lambda m, options=options: matsign.msign(m, **options)).lower(x).compile(QUICKLY)
        grams, others = gram_sums(program, 128)
        assert 0 < grams <= 2 * most
        assert others == 0
        np.testing.assert_allclose(program(x), matsign.msign(m, **options), atol=1e-11)
    wide = place(m.T, AxisType.Auto, (2, 4), None, ("a", "b"))
    np.testing.assert_allclose(matsign.msign(wide), matsign.msign(m).T, atol=1e-12)


def assert_refused():
    rows = (AxisType.Auto, (8,), "a")
    x = place(np.eye(16), *rows)
    for f, reason in (
        (lambda x: matsign.msign(x, method="svd"), "msign: this method needs svd .* shard the leading"),
        (lambda x: matsign.mcsgn(x, method="schur"), "mcsgn: this method needs a call of LAPACK"),
        (lambda x: matsign.solve_continuous_are(x, x, x, x), "solve_continuous_are: this method needs"),
        (matsign.condition(matsign.sqrtm), "sqrtm: this method needs isinf of a matrix"),
    ):
        with pytest.raises(NotImplementedError, match=reason):
            f(x)
    with pytest.raises(jax.errors.JaxRuntimeError, match="msign: this method needs svd"):
        jax.jit(lambda x: matsign.msign(x, method="svd"))(x)
    with pytest.raises(ValueError, match=r"mcsgn: .* cannot be distributed over 8 devices"):
        matsign.mcsgn(place(np.eye(12), AxisType.Auto, (2, 4), "a", "b"))


def assert_failures():
    """What products cannot solve is NaN or an error that says so; other members of the batch are right."""
    rng = np.random.default_rng(2)
    good, bad = rng.standard_normal((2, 16, 16))
    rotation = np.kron(np.eye(8), [[0.0, 1.0], [-1.0, 0.0]])
    singular = good.copy()
    singular[3] = 0.0
    bad[0, 0] = np.nan
    stack = place(np.stack([good, bad, rotation, singular]), AxisType.Auto, (8,), None, "a")
    with pytest.raises(matsign.SpectrumError, match="does not solve it") as error:
        matsign.mcsgn(stack)
    assert error.value.members == [(1,), (2,), (3,)]
    np.testing.assert_allclose(error.value.value[0], matsign.mcsgn(good), atol=1e-11)
    assert np.isnan(error.value.value[1:]).all()


def assert_all():
    """All in one process: each takes seconds to begin."""
    for check in (assert_values, assert_tall, assert_refused, assert_failures):
        check()


def test_one_matrix():
    run(1, assert_all, join=emulate, timeout=300)


def test_products_of_all_layouts():
    """Each combination of rows, columns and whole matrices, on a mesh of one device."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 1, 4, 4))
    mesh = jax.make_mesh((1,), ("a",))
    grid = Grid(("a",), ("a",), 1, 0)

    def products(x, y):
        parts = [[Distributed(z, axis, grid) for axis in (ROWS, COLUMNS, None)] for z in (x, y)]
        return [(p @ q).distribute(ROWS).block for p in parts[0] for q in parts[1]], trace(parts[0][1])

    spec = PartitionSpec()
    program = jax.jit(jax.shard_map(products, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False))
    found, traced = program(x, y)
    for product in found:
        np.testing.assert_allclose(product, x @ y, rtol=1e-5)
    np.testing.assert_allclose(traced, np.trace(x[0]), rtol=1e-5)


def test_right_hand_sides_are_distributed():
    """Each device has a whole copy of the smaller coefficient of a Sylvester equation, but of no right-hand side."""
    mesh = AbstractMesh((2, 4), ("a", "b"))
    grid = grid_of(mesh, [(None, ("b", "a"), None)] * 3, 1, [(1, 64, 64), (1, 32, 32), (1, 64, 32)])
    assert grid.axes == ("a", "b")
    assert grid.axis(64, 32) == ROWS
    assert grid.axis(32, 32) is None
