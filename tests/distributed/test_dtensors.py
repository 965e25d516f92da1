"""Functions of DTensors beside the same functions of whole tensors, in real processes."""

import functools
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import distributed  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor  # noqa: E402
from torch.distributed.tensor.debug import CommDebugMode  # noqa: E402
from torch.distributed.tensor.placement_types import _StridedShard  # noqa: E402

import matrices  # noqa: E402
import matsign  # noqa: E402
from keyword_arrays import by_position  # noqa: E402
from matsign import SpectrumError, certify, condition, frechet  # noqa: E402
from problems import BY_NAME, PROBLEMS  # noqa: E402
from processes import run  # noqa: E402

pytestmark = pytest.mark.slow


def mesh_of(*shape):
    return init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")[-len(shape) :])


def distributed_over(mesh, placements, *arrays):
    """Arrays of NumPy as DTensors that require gradients."""
    return [distribute_tensor(torch.as_tensor(x), mesh, placements).requires_grad_() for x in arrays]


def whole(*tensors):
    return [x.detach().full_tensor().requires_grad_() for x in tensors]


def counted(f, *args, **options):
    """The result, and the collectives by name."""
    with CommDebugMode() as mode:
        result = f(*args, **options)
    return result, {str(name).rpartition(".")[2]: count for name, count in mode.get_comm_counts().items()}


def as_tuple(x):
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def same(xs, ys):
    """Whether DTensors hold the bits of whole tensors."""
    pairs = list(zip(as_tuple(xs), as_tuple(ys), strict=True))
    return all(torch.equal(x.full_tensor(), y) for x, y in pairs)


def distance(xs, ys):
    pairs = zip(as_tuple(xs), as_tuple(ys), strict=True)
    gaps = [(x.full_tensor() - y).abs() for x, y in pairs]
    return max(gap.max().item() if gap.numel() else 0.0 for gap in gaps)


def square_sum(xs, local=False):
    return sum((x.to_local() if local else x).abs().square().sum() for x in as_tuple(xs))


def every_function(rng):
    """(function, arguments for five members)."""
    for problem in PROBLEMS:
        yield problem.f, problem.stacked(rng, 5)
    a, b, c = (
        np.stack(x)
        for x in (
            [-matrices.stable(rng, 4) for _ in range(5)],
            rng.standard_normal((5, 4, 2)),
            rng.standard_normal((5, 3, 4)),
        )
    )
    weight = np.stack([matrices.definite(rng, 4) for _ in range(5)])
    yield matsign.h2_norm, (a, b, c)
    yield matsign.discrete_h2_norm, (a / 9, b, c)
    yield matsign.hinf_norm, (a, b, c)
    yield matsign.discrete_hinf_norm, (a / 9, b, c)
    yield matsign.minimal_realization, (a, b, c)
    yield matsign.hankel_singular_values, (a, b, c)
    yield functools.partial(matsign.balanced_truncation, order=2), (a, b, c)
    yield functools.partial(matsign.lqg_balanced_truncation, order=2), (a, b, c)
    yield functools.partial(matsign.bounded_real_balanced_truncation, order=2, gamma=1e3), (a, b, c)
    yield functools.partial(matsign.fermi_occupation, kT=0.5, electrons=1.5), (weight,)
    yield matsign.bures_distance, (weight, weight[::-1].copy())
    yield matsign.fidelity, (weight, weight[::-1].copy())
    yield (
        matsign.frechet_distance,
        (rng.standard_normal((5, 4)), weight, rng.standard_normal((5, 4)), weight[::-1].copy()),
    )
    yield matsign.bures_distance_of_factors, (b, b[::-1].copy())
    yield matsign.fidelity_of_factors, (b, b[::-1].copy())
    yield matsign.frechet_distance_of_samples, (c, a)
    yield matsign.riemannian_distance, (weight, weight[::-1].copy())
    m = rng.standard_normal((5, 4, 3))
    yield matsign.warm_msign, (m, matsign.warm_msign(m + 1e-6 * rng.standard_normal(m.shape)).state)
    near = m + 1e-6 * rng.standard_normal(m.shape), matsign.warm_mclip(m, rank=2).state
    yield by_position(matsign.warm_mclip), near
    yield functools.partial(by_position(matsign.warm_svd), k=2), near
    yield functools.partial(by_position(matsign.warm_soft_threshold), t=2.0), near
    for step in (matsign.stiefel_step, matsign.spectral_sphere_step):
        yield step, (np.linalg.qr(m)[0], m[::-1].copy())
    yield matsign.kabsch, (*rng.standard_normal((2, 5, 4, 3)), 1 + rng.random((5, 4)))
    collection = np.stack([weight[:, :3, :3], weight[::-1, 1:, 1:]], axis=1)
    for mean in (matsign.karcher_mean, matsign.bures_mean):
        yield mean, (collection, 1 + rng.random((5, 2)))
    yield matsign.lqr, (a, b, weight, weight[:, :2, :2])
    yield functools.partial(matsign.lqr_finite_horizon, t=0.5), (a, b, weight, weight[:, :2, :2])
    yield functools.partial(matsign.dlqr_finite_horizon, steps=2), (a / 9, b, weight, weight[:, :2, :2])
    yield matsign.dlqr_time_varying, (a[:, None] / 9, b[:, None], weight[:, None], weight[:, None, :2, :2])
    yield matsign.dlqr, (a / 9, b, weight, weight[:, :2, :2])
    yield matsign.lqe, (a, weight, c, weight, weight[:, :3, :3])
    yield matsign.dlqe, (a / 9, weight, c, weight, weight[:, :3, :3])


def batches():
    mesh, problems = mesh_of(2), 0
    for f, arrays in every_function(np.random.default_rng(1)):
        # Five members on two processes: uneven shards.
        sharded = distributed_over(mesh, [Shard(0)], *arrays)
        expected = f(*(singles := whole(*sharded)))
        result, count = counted(f, *sharded)
        _, backward_count = counted(square_sum(result, local=True).backward)
        square_sum(expected).backward()
        assert (count, backward_count) == ({}, {}), f
        assert same(result, expected), f
        assert all(x.placements == (Shard(0),) for x in as_tuple(result)), f
        assert distance([x.grad for x in sharded], [x.grad for x in singles]) < 1e-11, f
        problems += 1
    return problems


def test_every_function_of_a_sharded_batch_without_communication():
    functions = [name for name in matsign.__all__ if hasattr(getattr(matsign, name), "spec")]
    assert run(2, batches) == [len(functions)] * 2


def tools():
    """Certificates, condition numbers and derivatives, for a function of matrices and one with thresholds in a DTensor."""
    mesh, rng = mesh_of(2), np.random.default_rng(2)
    a, b, q = arrays = distributed_over(mesh, [Shard(0)], *BY_NAME["solve_sylvester"].stacked(rng, 3))
    m, lower = distributed_over(mesh, [Shard(0)], rng.standard_normal((3, 4, 3)), np.array([0.1, 0.2, 0.3]))
    certified, conditioned, derivative = (
        transform(matsign.solve_sylvester) for transform in (certify, condition, frechet)
    )
    clip = functools.partial(matsign.mclip, upper=np.float64(1.5))
    results, count = counted(
        lambda: (certified(*arrays), conditioned(*arrays), derivative(*arrays, a, b, None), clip(m, lower))
    )
    assert not count
    (value, certificate), number, change, clipped = results
    (expected, reference), (a, b, q) = certified(*whole(*arrays)), whole(*arrays)
    assert same((value, *certificate[:-1]), (expected, *reference[:-1]))
    assert same((number, change), (conditioned(a, b, q), derivative(a, b, q, a, b, None)))
    assert same(
        *(certify(matsign.msign)(x)[1].measures["orthogonality"] for x in (m, m.full_tensor())),
    )
    singles = whole(m, lower)
    assert same(clipped, clip(*singles))
    clipped.to_local().sum().backward()
    clip(*singles).sum().backward()
    assert same((m.grad, lower.grad), (singles[0].grad, singles[1].grad))


def layouts():
    """Two batch axes on a mesh of two axes, with shared and broadcast arguments, uneven and empty shards."""
    mesh, rng = mesh_of(2, 2), np.random.default_rng(3)
    q = rng.standard_normal((3, 5, 3, 2))
    a, b = (np.stack([matrices.stable(rng, n) for _ in range(5)]) for n in (3, 2))
    everywhere, first, second = [Replicate()] * 2, [Shard(0), Replicate()], [Replicate(), Shard(0)]
    cases = [
        ((q, [Replicate(), Shard(1)]), (a, second), (b, everywhere)),
        ((q, [Shard(0), Shard(1)]), (a, everywhere), (b, second)),
        ((q, [Shard(0), Shard(0)]), (a[:1], everywhere), (b[0], everywhere)),
        ((q[:1], first), (a, everywhere), (b, everywhere)),
        ((q[:0], [Shard(0), Shard(1)]), (a, second), (b, second)),
    ]
    for at_q, at_a, at_b in cases:
        arrays = [distributed_over(mesh, placements, x)[0] for x, placements in (at_a, at_b, at_q)]
        result, count = counted(matsign.solve_sylvester, *arrays)
        _, backward_count = counted(square_sum(result, local=True).backward)
        assert (count, backward_count) == ({}, {})
        assert result.placements == tuple(at_q[1])
        singles = whole(*arrays)
        expected = matsign.solve_sylvester(*singles)
        assert same(result, expected)
        square_sum(expected).backward()
        # The gradient of a shared argument is a sum over the processes.
        assert distance([x.grad for x in arrays], [x.grad for x in singles]) < 1e-12
    (x,) = distributed_over(mesh, second, rng.standard_normal((3, 4, 2)))
    (single,) = whole(x)
    square_sum(matsign.polar(x)).full_tensor().backward()
    square_sum(matsign.polar(single)).backward()
    assert distance(x.grad, single.grad) < 1e-12


def strided():
    """The placements of FSDP over a tensor that is already sharded along the same axis."""
    mesh, whole_batch = mesh_of(2, 2), torch.as_tensor(np.random.default_rng(4).standard_normal((9, 3, 3)))
    whole_batch[5, 0, 0] = torch.nan
    outer = torch.chunk(whole_batch, 2)[mesh.get_local_rank(1)]
    local = torch.chunk(outer, 2)[mesh.get_local_rank(0)]
    placements = [_StridedShard(0, split_factor=2), Shard(0)]
    shape, stride = whole_batch.shape, whole_batch.stride()
    x = DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)
    result = matsign.mcsgn(x, errors="nan")
    assert result.placements == tuple(placements)
    assert torch.equal(result.to_local().nan_to_num(), matsign.mcsgn(local, errors="nan").nan_to_num())
    return failed_members(matsign.mcsgn, x)


def failed_members(f, x):
    """The members that the error of this process names."""
    try:
        f(x)
    except SpectrumError as error:
        return error.members, str(error)
    return None


def failures():
    """A member without an answer is NaN on its process, or an error there that names it by its place in the whole batch."""
    mesh, rng = mesh_of(2, 2), np.random.default_rng(4)
    m = rng.standard_normal((2, 7, 3, 3))
    m[1, 4, 0, 0] = np.nan
    x = distributed_over(mesh, [Shard(0), Shard(1)], m)[0].detach()
    nan = torch.isnan(matsign.msign(x, errors="nan").full_tensor()).all(-1).all(-1)
    assert torch.nonzero(nan).tolist() == [[1, 4]]
    return failed_members(matsign.msign, x)


def of_four():
    layouts()
    return strided(), failures()


def test_certificates_condition_and_derivatives():
    run(2, tools)


def test_layouts_and_failures():
    by_rank = run(4, of_four)
    text = "batch members {}: the input holds NaN or infinity"
    # Rank 1 has members 5 to 7 of nine, and rank 3 the members (1, 4) to (1, 6) of 2 × 7.
    assert [strided for strided, _ in by_rank] == [None, ([(5,)], "mcsgn: " + text.format(5)), None, None]
    assert [error for _, error in by_rank] == [None, None, None, ([(1, 4)], "msign: " + text.format((1, 4)))]


SHAPES = {2: [(40, 7), (7, 40), (11, 9), (2, 3, 30, 4), (0, 3), (0, 5, 4), (3, 0)], 4: [(13, 13), (2, 1)]}


def by_products(world):
    """msign and polar of matrices with sharded rows or columns."""
    mesh, rng = mesh_of(world), np.random.default_rng(5)
    for shape in SHAPES[world]:
        for axis in (-2, -1):
            (m,) = distributed_over(mesh, [Shard(len(shape) + axis)], rng.standard_normal(shape))
            (single,) = whole(m)
            for f, options in ((matsign.msign, {"steps": 5}), (matsign.polar, {"method": "polynomial"})):
                m.grad = single.grad = None
                result, expected = f(m, **options), f(single, **options)
                assert distance(result, expected) < 1e-10, (shape, axis, f)
                assert as_tuple(result)[0].placements == m.placements
                sum(square_sum(x) for x in as_tuple(result)).backward()
                square_sum(expected).backward()
                assert distance(m.grad, single.grad) < 1e-9, (shape, axis, f)
                again = f(m, **options)
                assert same(result, [x.full_tensor() for x in as_tuple(again)])


def long_and_many(world):
    """All-reduces of tall matrices, in single and half precision; no process holds more than its rows and k × k numbers."""
    mesh, rng = mesh_of(world), np.random.default_rng(6)
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        m = torch.as_tensor(rng.standard_normal((9001, 5))).to(dtype)
        for rows, axis in ((m, 0), (m.mT, 1)):
            (x,) = distributed_over(mesh, [Shard(axis)], rows)
            result, count = counted(matsign.msign, x.detach(), steps=4)
            # Whether the processes agree, whether entries are finite, the norm, and one Gram matrix.
            assert count == {"allreduce_": 4}
            assert result.dtype == dtype
            assert distance(result, matsign.msign(rows, steps=4)) < (0.01 if dtype == torch.bfloat16 else 1e-4)
    if world == 4:
        grid, batch = mesh_of(2, 2), rng.standard_normal((3, 20, 6))
        batch[1, 19, 0] = np.inf
        for placements in ([Shard(0), Shard(1)], [Shard(2), Shard(0)], [Replicate(), Shard(2)]):
            (x,) = distributed_over(grid, placements, batch)
            result = matsign.polar(x, errors="nan")
            assert same([y.isnan().all(-1).all(-1) for y in result], [torch.tensor([False, True, False])] * 2)
            expected = matsign.polar(x.full_tensor(), errors="nan")
            assert distance([y[::2] for y in result], [y[::2] for y in expected]) < 1e-11


def roots(world):
    """Square roots of matrices with sharded rows or columns."""
    mesh, rng = mesh_of(world), np.random.default_rng(7)
    for dtype in ("float64", "complex128")[: 4 // world]:
        a = np.stack(
            [matrices.definite(rng, 7, dtype=dtype) @ matrices.definite(rng, 7, dtype=dtype) for _ in range(2)]
        )
        for axis in (1, 2):
            (x,) = distributed_over(mesh, [Shard(axis)], a * [[[1e120]], [[1e-90]]])
            (single,) = whole(x)
            result, expected = matsign.sqrtm_pair(x), matsign.sqrtm_pair(single)
            for r, e in zip(result, expected, strict=True):
                assert r.placements == x.placements
                gap = torch.linalg.matrix_norm(r.full_tensor() - e) / torch.linalg.matrix_norm(e)
                assert gap.max() < 1e-10
            result[0].to_local().real.sum().backward()
            expected[0].real.sum().backward()
            gap = torch.linalg.matrix_norm(x.grad.full_tensor() - single.grad) / torch.linalg.matrix_norm(single.grad)
            assert gap.max() < 1e-9
    (x,) = distributed_over(
        mesh, [Shard(1)], np.stack([np.diag([1.0, 2.0, -1.0]), np.eye(3), np.diag([1.0, 0.0, 1.0])])
    )
    return failed_members(matsign.sqrtm_pair, x.detach())


def along_an_axis(world):
    by_products(world)
    long_and_many(world)
    return roots(world)


@pytest.mark.parametrize("world", [2, 4])
def test_matrices_sharded_along_an_axis(world):
    (members, text), *others = run(world, along_an_axis, world)
    assert members == [(0,), (2,)]
    assert "full_tensor" in text
    assert others == [(members, text)] * (world - 1)


def disagreements():
    """Calls that differ between the processes, or from what a DTensor says of its local tensor: an error on all, no hang."""
    mesh, rank = mesh_of(2), distributed.get_rank()
    local = torch.ones(4 + rank, 3)
    x = distribute_tensor(torch.ones(8, 3), mesh, [Shard(0)])
    calls = [
        lambda: matsign.msign(DTensor.from_local(local, mesh, [Shard(0)])),
        lambda: matsign.msign(DTensor.from_local(local, mesh, [Shard(0)], shape=torch.Size((9, 3)), stride=(3, 1))),
        lambda: matsign.msign(x, steps=3 + rank),
        lambda: matsign.msign(x.double() if rank else x),
        lambda: matsign.msign(x, method="svd" if rank else "auto"),
    ]
    texts = []
    for call in calls:
        with pytest.raises(ValueError, match="the processes must have the same call") as caught:
            call()
        texts.append(str(caught.value))
    with pytest.raises(ValueError, match=r"msign: .* got 'svd'; pass M.full_tensor\(\) for the others"):
        matsign.msign(x, method="svd")
    x.requires_grad_()
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        torch.autograd.grad(matsign.msign(x, steps=3).to_local().sum(), x, create_graph=True)
    return texts


def test_processes_that_disagree_raise_the_same_error():
    texts, other = run(2, disagreements)
    assert texts == other
    assert all("rank 0 has" in text and "rank 1 has" in text for text in texts)
    assert re.search(r"\(8, 3\).*\(10, 3\)", texts[0])
    assert "should have a tensor of shape (4, 3), but it has one of shape (5, 3)" in texts[1]


def refusals():
    mesh, grid, rng = mesh_of(4), mesh_of(2, 2), np.random.default_rng(8)
    other = init_device_mesh("cpu", (4,), mesh_dim_names=("others",))
    a, b = rng.standard_normal((2, 8, 4, 4))

    def on(mesh, x, *placements):
        return distributed_over(mesh, placements, x)[0].detach()

    rows, batch, shared = on(mesh, a[0], Shard(0)), on(mesh, a, Shard(0)), on(mesh, a, Replicate())
    solve = matsign.solve_sylvester
    calls = [
        lambda: matsign.msign(DTensor.from_local(torch.as_tensor(a), mesh, [Partial()], run_check=False)),
        lambda: matsign.mcsgn(rows),
        lambda: certify(matsign.msign)(rows),
        lambda: matsign.msign(on(grid, a[0], Shard(0), Shard(1))),
        lambda: matsign.msign(on(grid, a[0], Shard(0), Shard(0))),
        lambda: solve(batch, on(other, b, Shard(0)), shared),
        lambda: solve(batch, torch.as_tensor(b), batch),
        lambda: solve(batch, b, batch),
        lambda: solve(batch, on(mesh, b[:, :3], Shard(0)), batch),
        lambda: solve(batch, on(mesh, b[:3], Shard(0)), batch),
        lambda: solve(batch, on(mesh, b[:1], Shard(0)), batch),
        lambda: matsign.coupled_root(on(mesh, a[None], Shard(0)), on(mesh, b[None], Shard(1))),
        lambda: matsign.coupled_root(on(grid, a, Shard(0), Shard(0)), on(grid, b, Replicate(), Shard(0))),
        lambda: matsign.mclip(batch, 0.1, torch.ones(8)),
        lambda: frechet(matsign.msign)(batch, a),
    ]
    texts = []
    for call in calls:
        with CommDebugMode() as mode:
            with pytest.raises((TypeError, ValueError)) as caught:
                call()
            # Only distribute_tensor in the call above communicates, by broadcast and scatter.
            assert not any("reduce" in str(name) or "gather" in str(name) for name in mode.get_comm_counts())
        texts.append(str(caught.value))
    return texts


def test_what_is_not_supported_is_refused_before_any_communication():
    texts, *others = run(4, refusals)
    assert others == [texts] * 3
    wanted = [
        r"msign: M of shape \(8, 4, 4\) is placed \(Partial\(sum\)\).*M.redistribute",
        r"mcsgn: M of shape \(4, 4\) is placed \(Shard\(dim=0\)\).*only calls of msign.*M.full_tensor\(\)",
        r"msign: M of shape \(4, 4\).*only calls of msign.*M.full_tensor\(\)",
        r"Shard\(dim=0\), Shard\(dim=1\)\) on the cpu mesh \(replicas=2, shards=2\).*more than one mesh axis",
        r"Shard\(dim=0\), Shard\(dim=0\)\) on .*more than one mesh axis",
        r"solve_sylvester: a is on the cpu mesh .*, but b on the cpu mesh \(others=4\)",
        r"solve_sylvester: a is a DTensor, but b is a plain Tensor; distribute it",
        r"solve_sylvester: a is a DTensor, but b is a plain ndarray; distribute it",
        r"solve_sylvester: b has shape \(8, 3, 4\), expected \(..., m, m\)",
        r"solve_sylvester: the leading axes do not broadcast: a \(8, 4, 4\), b \(3, 4, 4\)",
        r"solve_sylvester: b of shape \(1, 4, 4\) is placed .* shards an axis of size 1 that broadcasts to 8",
        r"coupled_root: A of .* and B of .* shard different batch axes",
        r"coupled_root: B of .* the same placements",
        r"mclip: M is a DTensor, but upper is a plain Tensor",
        r"msign: M is a DTensor, but dM is a plain ndarray",
    ]
    for text, pattern in zip(texts, wanted, strict=True):
        assert re.search(pattern, text), (text, pattern)
