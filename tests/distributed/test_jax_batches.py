"""JAX: each device solves the members of a batch that it holds, on emulated devices and in real processes."""

import os
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest

import matsign
from processes import outcomes, run, run_checks

jax = pytest.importorskip("jax")

import jax.numpy as xp  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

from matsign.backends import jax_host, jax_partitioning, jax_sharding  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.compiles]

COLLECTIVES = re.compile(r"(?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
# Optimisation by XLA takes longer than it saves in a single run.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
KINDS = {
    "automatic": (AxisType.Auto, AxisType.Auto),
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}


def emulate(rank, world, folder):
    """Eight devices in one process."""
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_x64", True)


def mesh_of(kind, *sizes):
    return jax.make_mesh(sizes, ("x", "y")[: len(sizes)], axis_types=KINDS[kind][: len(sizes)])


def place(x, mesh, *axes):
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))


def positive(*batch, n=3, seed=0):
    a = np.random.default_rng(seed).standard_normal((*batch, n, n))
    return a @ a.swapaxes(-1, -2) + np.eye(n)


def assert_local(f, expected, *arrays, tol=0.0):
    """No collective in the program, the leading axes sharded as those of the first array, and the right values."""
    program = jax.jit(f).lower(*arrays).compile(QUICKLY)
    assert not COLLECTIVES.findall(program.as_text())
    over = jax_sharding.axes_of(arrays[0])[:2]
    for x, y in zip(jax.tree.leaves(program(*arrays)), jax.tree.leaves(expected), strict=True):
        assert jax_sharding.axes_of(x) == (*over, *(None,) * (x.ndim - 2))
        np.testing.assert_allclose(x, y, rtol=tol, atol=tol)


def gradient(f):
    return jax.grad(lambda *xs: sum((y**2).sum() for y in jax.tree.leaves(f(*xs))))


def assert_calls_are_local(kind):
    mesh = mesh_of(kind, 4, 2)
    a, b, q = positive(8, 4), np.diag([1.0, 2.0, 3.0]), positive(4, seed=1)
    x, rows = place(a, mesh, "x", "y"), place(q, mesh, "y")

    def care(a, r):
        return matsign.solve_continuous_are(a, a, a, r)

    def four_steps(m):
        return matsign.msign(m, steps=4)

    assert_local(matsign.sqrtm, matsign.sqrtm(a), x)
    assert_local(matsign.solve_sylvester, matsign.solve_sylvester(a, b, q), x, b, rows)
    assert_local(care, care(a, b), x, b)
    assert_local(matsign.polar, matsign.polar(a), x)
    assert_local(four_steps, four_steps(a), x, tol=1e-12)
    assert_local(lambda m: matsign.mcsgn(m, method="polynomial"), matsign.mcsgn(a), x, tol=1e-12)
    assert_local(lambda m: matsign.hankel_singular_values(-m, m, m), matsign.hankel_singular_values(-a, a, a), x)
    for wrap in (matsign.condition, lambda f: lambda m: matsign.certify(f)(m)[1].forward_error):
        assert_local(wrap(matsign.sqrtm), wrap(matsign.sqrtm)(a), x)
    assert_local(matsign.frechet(matsign.sqrtm), matsign.frechet(matsign.sqrtm)(a, a), x, x)

    assert_local(gradient(matsign.sqrtm), gradient(matsign.sqrtm)(xp.asarray(a)), x, tol=1e-13)
    assert_local(gradient(four_steps), gradient(matsign.msign)(xp.asarray(a)), x, tol=1e-10)
    twice = gradient(gradient(matsign.sqrtm))
    assert_local(twice, twice(xp.asarray(a)), x, tol=1e-12)
    for vmapped in (
        jax.vmap(jax.vmap(matsign.sqrtm)),
        jax.vmap(matsign.sqrtm, spmd_axis_name="x"),
        jax.vmap(matsign.sqrtm, in_axes=1, out_axes=1),
        jax.shard_map(matsign.sqrtm, mesh=mesh, in_specs=PartitionSpec("x", "y"), out_specs=PartitionSpec("x", "y")),
    ):
        assert_local(vmapped, matsign.sqrtm(a), x)
    for axes in ((("x", "y"),), (None, "x"), (("y", "x"), None), ()):
        assert_local(matsign.sqrtm, matsign.sqrtm(a), place(a, mesh, *axes))


def assert_trees_are_local(mesh, a):
    """Arrays of one shape, two sharded in one way and one in another, eager and (on an explicit mesh) compiled."""
    tree = [place(a, mesh, "x", "y"), place(a[::-1], mesh, "x", "y"), place(a, mesh, "x")]
    results = [matsign.each(matsign.polar)(tree)]
    if mesh.axis_types == KINDS["explicit"]:
        results.append(jax.jit(matsign.each(matsign.polar))(tree))
    for x, found in zip(tree * len(results), (x for result in results for x in result), strict=True):
        for part, expected in zip(found, matsign.polar(np.asarray(x)), strict=True):
            assert jax_sharding.axes_of(part) == jax_sharding.axes_of(x)
            np.testing.assert_array_equal(part, expected)


def assert_eager_calls_are_local(kind):
    mesh = mesh_of(kind, 4, 2)
    a = positive(8, 4)
    x = place(a, mesh, "x", "y")
    for found, expected in (
        (matsign.sqrtm(x), matsign.sqrtm(a)),
        (matsign.solve_sylvester(x, xp.eye(3), x), matsign.solve_sylvester(a, np.eye(3), a)),
        (matsign.solve_sylvester(place(np.eye(3), mesh), x, x), matsign.solve_sylvester(np.eye(3), a, a)),
        (matsign.certify(matsign.sqrtm)(x)[1].backward_error, matsign.certify(matsign.sqrtm)(a)[1].backward_error),
    ):
        assert jax_sharding.axes_of(found) == ("x", "y", *(None,) * (found.ndim - 2))
        np.testing.assert_array_equal(found, expected)

    assert_trees_are_local(mesh, a)

    def slope(a, b):
        return jax.grad(lambda b: (matsign.solve_sylvester(a, b, a) ** 2).sum())(b)

    b = np.diag([1.0, 2.0, 3.0])
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(slope(x, place(b, mesh)), slope(xp.asarray(a), xp.asarray(b)), rtol=1e-13)

    a[2, 3], a[7, 0, 0, 0] = -np.diag([1.0, 2.0, 3.0]), np.nan
    x = place(a, mesh, "x", "y")
    with pytest.raises(matsign.SpectrumError) as error:
        matsign.sqrtm(x)
    with pytest.raises(matsign.SpectrumError) as by_numpy:
        matsign.sqrtm(a)
    assert (str(error.value), error.value.members) == (str(by_numpy.value), by_numpy.value.members)
    assert error.value.value.sharding.is_equivalent_to(x.sharding, 4)
    np.testing.assert_array_equal(matsign.sqrtm(x, errors="nan"), error.value.value)

    elsewhere = jax.device_put(np.eye(3), jax.devices()[1])
    with pytest.raises(ValueError, match=r"the same devices; a is on .* b is on cpu:1"):
        matsign.solve_sylvester(x, elsewhere, x)
    if kind == "explicit":
        with pytest.raises(ValueError, match=r"solve_sylvester: the arrays a, b, q .* axis 0 is sharded over 'x'.*'y'"):
            jax.jit(matsign.solve_sylvester)(x, place(a, mesh, "y", "x"), x)
    if kind == "automatic":
        ten, alone = positive(10), NamedSharding(mesh_of(kind, 8), PartitionSpec("x"))
        uneven = jax.jit(lambda m: matsign.sqrtm(jax.lax.with_sharding_constraint(m, alone)))
        np.testing.assert_array_equal(uneven(ten), matsign.sqrtm(ten))


def assert_local_on_an_accelerator(kind):
    """The program for an accelerator, on the CPU: loops and calls of the host are those of each device alone."""
    jax_partitioning._by_host = jax_partitioning._by_device
    helped, solve = [], jax_host.solve_some

    def noted(bound, results, arrays):
        helped.append(int(np.sum(arrays[0])))
        return solve(bound, results, arrays)

    jax_host.solve_some = noted
    m = positive(8, 2)
    m[3, 1] = np.diag([1.0, 2.0, 0.0])  # this member and the next are the host's
    m[6, 0] = np.diag([0.0, -2.0, 3.0])
    assert_local(matsign.mcsgn, matsign.mcsgn(m), place(m, mesh_of(kind, 4, 2), "x", "y"), tol=1e-12)
    assert helped == [1, 1]


def test_no_collective_on_an_accelerator():
    run(1, assert_local_on_an_accelerator, "automatic", join=emulate)


def assert_fast():
    mesh, a = mesh_of("automatic", 8), positive(4000, n=8)
    x = place(a, mesh, "x")
    np.testing.assert_array_equal(jax.jit(matsign.sqrtm)(x), matsign.sqrtm(a))


CHECKS = {
    "no collective, automatic": (assert_calls_are_local, "automatic"),
    "no collective, explicit": (assert_calls_are_local, "explicit"),
    "eager calls, automatic": (assert_eager_calls_are_local, "automatic"),
    "eager calls, explicit": (assert_eager_calls_are_local, "explicit"),
    "eager calls, mixed": (assert_eager_calls_are_local, "mixed"),
    "a large batch does not hang": (assert_fast,),
}


def test_on_eight_devices():
    """In one process, as each would import JAX again, and in one test, as each worker of pytest could start a process."""
    failed = {name: traceback for name, traceback in run_checks(CHECKS, emulate).items() if traceback}
    assert not failed, "\n".join(f"{name}: {traceback}" for name, traceback in failed.items())


def connect(rank, world, folder, patience=60):
    """Two devices in each process; one that ends is noticed after `patience` seconds, by missing heartbeats."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_enable_x64", True)
    address = Path(folder) / "address"
    if rank == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (Path(folder) / "written").write_text(f"127.0.0.1:{port}")
        os.rename(Path(folder) / "written", address)
    while not address.exists():
        time.sleep(0.01)
    jax.distributed.initialize(address.read_text(), world, rank, heartbeat_timeout_seconds=patience)
    return jax.distributed.shutdown


def connect_impatiently(rank, world, folder):
    return connect(rank, world, folder, patience=5)


def local(x):
    """The members of x in this process, by their index in the batch."""
    return {shard.index[0].start: np.asarray(shard.data) for shard in x.addressable_shards}


def solve_in_processes(kind, batch):
    mesh = mesh_of(kind, jax.device_count())
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    a, bad = positive(batch), positive(batch)
    bad[batch // 2 + 1] = -np.diag([1.0, 2.0, 3.0])
    x, y = (jax.make_array_from_callback(m.shape, sharding, m.__getitem__) for m in (a, bad))
    program = jax.jit(matsign.sqrtm).lower(x).compile()
    assert not COLLECTIVES.findall(program.as_text())
    for found in (program(x), matsign.sqrtm(x), matsign.solve_sylvester(x, xp.eye(3), xp.eye(3))):
        assert jax_sharding.axes_of(found) == ("x", None, None)
    with pytest.raises(matsign.SpectrumError) as error:
        matsign.sqrtm(y)
    roots, slopes = matsign.sqrtm(y, errors="nan"), jax.jit(gradient(matsign.sqrtm))(x)
    return local(matsign.sqrtm(x)), local(roots), local(slopes), error.value.members


@pytest.mark.parametrize(("world", "kind"), [(2, "automatic"), (4, "explicit")])
def test_processes(world, kind):
    a, bad = positive(16), positive(16)
    bad[9] = -np.diag([1.0, 2.0, 3.0])
    slopes = gradient(matsign.sqrtm)(xp.asarray(a))
    results = run(world, solve_in_processes, kind, 16, join=connect)
    for found, expected in zip(zip(*results, strict=True), (a, bad, slopes), strict=False):
        parts = {start: part for one in found for start, part in one.items()}
        whole = np.concatenate([parts[start] for start in sorted(parts)])
        wanted = expected if expected is slopes else matsign.sqrtm(expected, errors="nan")
        np.testing.assert_allclose(whole, wanted, rtol=1e-13)
    assert [members for *_, members in results] == [[(9,)]] * world


def solve_until_one_ends(folder):
    rank = jax.process_index()
    log = os.open(Path(folder) / f"log{rank}", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)
    sharding = NamedSharding(mesh_of("automatic", jax.device_count()), PartitionSpec("x"))
    a = positive(8)
    x = jax.make_array_from_callback(a.shape, sharding, a.__getitem__)
    for k in range(600):
        jax.jit(matsign.sqrtm)(x).block_until_ready()
        if k == 3 and rank == 1:
            os._exit(7)
        time.sleep(0.1)


def test_a_process_that_ends_ends_the_others(tmp_path):
    survivor, dead = outcomes(2, solve_until_one_ends, str(tmp_path), join=connect_impatiently)
    assert dead.code == 7
    assert not survivor.ended_well
    assert survivor.seconds < 120
    assert re.search(
        r"unhealthy \(stopped sending heartbeats\):\s+(/job:jax_worker/replica:0/task:)?1\b",
        (tmp_path / "log0").read_text(),
    )
