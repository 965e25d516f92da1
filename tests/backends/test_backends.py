"""The functions of `Backend`: none raises for a member, and all keep dtypes and devices."""

import contextlib
import functools
import importlib

import numpy as np
import pytest

from matrices import DTYPES, gaussian
from matsign import SpectrumError, backends, mcsgn, msign, solve_continuous_lyapunov


@pytest.fixture
def backend(on):
    return backends.load(on.name)


def test_library_of(on):
    assert backends.library_of(on.array(np.eye(2))) == on.name
    for x in ([[1.0]], 1.0, None, "x"):
        assert backends.library_of(x) is None
    assert backends.library_of(np.float64(1)) == "numpy"


@pytest.mark.parametrize("dtype", DTYPES)
def test_names_of_dtypes(on, backend, dtype):
    x = on.array(np.ones((2, 3, 3), dtype))
    assert backend.dtype_name(x) == dtype
    assert backend.eps(x) == np.finfo(dtype).eps
    assert backend.is_complex(x) == dtype.startswith("c")
    assert backend.dtype_name(backend.astype(x, "complex64")) == "complex64"
    assert backend.dtype_name(backend.eye(2, x)) == dtype
    assert backend.dtype_name(backend.ones(x)) == np.finfo(dtype).dtype.name
    assert backend.common_dtype_name(x, on.array(np.ones(1, "complex64"))) == np.result_type(dtype, "complex64").name


@pytest.mark.parametrize("size", [1, 3, 20])
def test_singular_members_become_nan_and_the_others_stay_right(on, backend, size, rng):
    a = gaussian(rng, 3, size, size) + 5 * np.eye(size)
    a[1] = 0
    inverse = np.asarray(backend.inv(on.array(a)))
    solved = np.asarray(backend.solve(on.array(a), on.array(np.ones((3, size, 2)))))
    for k in (0, 2):
        np.testing.assert_allclose(inverse[k] @ a[k], np.eye(size), atol=1e-13)
        np.testing.assert_allclose(a[k] @ solved[k], 1, atol=1e-13)
    assert not np.isfinite(inverse[1]).any()
    assert not np.isfinite(solved[1]).any()


def test_cholesky_of_an_indefinite_member(on, backend, rng):
    a = np.stack([2 * np.eye(3), -np.eye(3), np.eye(3)])
    low = np.asarray(backend.cholesky(on.array(a)))
    np.testing.assert_allclose(low[[0, 2]], np.stack([2**0.5 * np.eye(3), np.eye(3)]))
    assert np.isnan(low[1]).any()


def test_scan_in_both_orders(on, backend):
    """Rows in nested tuples, with None and the numbers of the rows; what each step gives is stacked in the order of the rows."""
    rows = on.array(np.array([[[2.0]], [[3.0]], [[5.0]]]))

    def step(state, row):
        (factor, nothing), k = row
        assert nothing is None
        return state * factor + k, (state, state + k)

    for reverse, last, before in ((False, 37.0, [1, 2, 7]), (True, 44.0, [22, 7, 1])):
        state, (each, plus) = backend.scan(step, on.array(np.ones((1, 1))), ((rows, None), range(3)), reverse=reverse)
        assert np.asarray(state)[0, 0] == last
        np.testing.assert_array_equal(np.asarray(each).ravel(), before)
        np.testing.assert_array_equal(np.asarray(plus).ravel(), np.add(before, range(3)))


def test_exponent_and_ldexp(on, backend):
    x = np.array([1.0, 0.75, 0.5, 3.0, 1e300, 1e-300, 0.0])
    e = np.asarray(backend.exponent(on.array(x)))
    np.testing.assert_array_equal(e, np.frexp(x)[1])
    back = np.asarray(backend.ldexp(on.array(x), on.array(-e)))
    assert np.all((back == 0) | ((back >= 0.5) & (back < 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ldexp_has_no_overflow_on_the_way(on, backend, dtype):
    big = np.finfo(dtype).maxexp - 4
    x = on.array(np.array([[1.0, 0.75]], dtype) * (1 + 0j if dtype.startswith("c") else 1))
    e = on.array(np.array([[2 * big]], "int32"))
    down = backend.ldexp(backend.ldexp(x, on.array(np.array([[-big]], "int32"))), e)
    assert backend.dtype_name(down) == dtype
    np.testing.assert_array_equal(np.asarray(down), np.array([[1.0, 0.75]]) * 2.0**big)


def test_loop_freezes_members_that_are_done(on, backend):
    counts = on.array(np.array([1.0, 5.0, 3.0, 0.0, 9.0]))

    def step(state):
        left, steps = state
        return (left - 1, steps + 1), left > 1

    left, steps = backend.loop(step, (counts, 0 * counts), 7)
    np.testing.assert_array_equal(np.asarray(steps), [1, 5, 3, 1, 7])
    np.testing.assert_array_equal(np.asarray(left), [0, 0, 0, -1, 2])


def test_loop_leaves_its_first_state_alone(on, backend):
    x = on.array(np.array([1.0, 2.0]))
    backend.loop(lambda s: ((s[0] * 2,), s[0] < 8), (x,), 5)
    np.testing.assert_array_equal(np.asarray(x), [1, 2])


@pytest.mark.parametrize("mask", [[True, True, True], [False, False, False], [True, False, True], [False, True, False]])
def test_split_merges_in_order(on, backend, mask):
    x, y = on.array(np.arange(6.0).reshape(3, 2)), on.array(np.arange(3))
    a, b = backend.masked_cond(on.array(np.array(mask)), lambda x, y: (10 * x, -y), lambda x, y: (x, y), x, y)
    np.testing.assert_array_equal(np.asarray(a), np.where(mask, 10, 1)[:, None] * np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(np.asarray(b), np.where(mask, -1, 1) * np.arange(3))


def test_split_runs_a_side_only_if_it_has_members(on, backend):
    x = on.array(np.ones((2, 1)))
    backend.masked_cond(on.array(np.array([True, True])), lambda x: x, lambda x: pytest.fail("ran"), x)
    backend.masked_cond(on.array(np.array([False, False])), lambda x: pytest.fail("ran"), lambda x: x, x)


def test_host_runs_numpy_and_comes_back(on, backend):
    x = on.array(np.arange(4.0).reshape(1, 2, 2))
    (doubled,) = backend.host_callback(lambda x: (2 * x,), (x,), x)
    assert type(doubled) is type(x)
    np.testing.assert_array_equal(np.asarray(doubled), 2 * np.asarray(x))


def test_torch_keeps_no_tape(rng):
    torch = pytest.importorskip("torch")
    import matsign

    m = torch.from_numpy(gaussian(rng, 3, 3))
    assert not matsign.msign(m).requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenvectors_are_complex_whatever_the_members(on, backend, dtype, rng):
    """The results are complex even if all eigenvalues are real."""
    a = np.stack([np.diag([1.0, 2, 3]).astype(dtype), gaussian(rng, 3, 3, dtype=dtype)])
    values, vectors = (np.asarray(x) for x in backend.eig(on.array(a)))
    assert values.dtype == vectors.dtype == np.result_type(dtype, "complex64")
    gap = a @ vectors - vectors * values[:, None, :]
    assert np.linalg.norm(gap) < 50 * np.finfo(dtype).eps * np.linalg.norm(a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 16, 33, 81])
def test_a_stack_has_the_bits_of_its_members(size, dtype, rng):
    backend = backends.load("numpy")
    a = gaussian(rng, 3, size, size, dtype=dtype)
    hermitian = a + a.conj().mT
    for f, x in ((backend.svd, a), (backend.svd, a[:, : (size + 1) // 2]), (backend.eigh, hermitian), (backend.eig, a)):
        for k in range(3):
            for stacked, alone in zip(f(x), f(x[k : k + 1]), strict=True):
                np.testing.assert_array_equal(stacked[k], alone[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["svd", "eigh"])
def test_a_member_that_lapack_gives_up_on(name, dtype, eager, rng, monkeypatch):
    """If divide and conquer does not converge for a member, another method decomposes it; the others are unchanged."""
    backend, m = backends.load(eager.name), gaussian(rng, 3, 5, 5, dtype=dtype)
    m = m + m.conj().mT
    libraries = [np.linalg, importlib.import_module("torch.linalg")] if eager.name == "torch" else [np.linalg]
    usual = {library: getattr(library, name) for library in libraries}

    def failing(library, x, **options):
        if (np.asarray(x)[..., 0, 0] == m[1, 0, 0]).any():
            raise library.LinAlgError("did not converge")
        return usual[library](x, **options)

    expected = [np.asarray(x) for x in getattr(backend, name)(eager.array(m))]
    for library in usual:
        monkeypatch.setattr(library, name, functools.partial(failing, library))
    found = [np.asarray(x) for x in getattr(backend, name)(eager.array(m))]
    values = 1 if name == "svd" else 0
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert x.dtype == y.dtype
        if eager.name == "numpy":
            np.testing.assert_array_equal(x[[0, 2]], y[[0, 2]])
        if k == values:
            np.testing.assert_allclose(x, y, rtol=100 * np.finfo(dtype).eps)
    u, v = (found[0], found[2]) if name == "svd" else (found[1], found[1].conj().mT)
    np.testing.assert_allclose(u * found[values][:, None, :] @ v, m, atol=100 * np.finfo(dtype).eps)


class TestPrecisionOfProducts:
    """With these settings of the process, iterations would not converge, or converge to wrong answers."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture
    def calls(self, torch, rng):
        a = torch.from_numpy(gaussian(rng, 40, 40)).float()

        def values():
            return msign(a, method="polynomial"), msign(a, steps=4), mcsgn(a)

        return values

    def test_they_are_left_as_they_were(self, torch):
        """On GPUs and some CPUs they round float32 to 11 bits."""
        matmul = getattr(torch.backends.mkldnn, "matmul", None)  # since PyTorch 2.9
        backend, before = backends.load("torch"), torch.get_float32_matmul_precision()
        for setting in ("high", "medium"):
            try:
                torch.set_float32_matmul_precision(setting)
                with contextlib.suppress(ZeroDivisionError), backend.full_precision(torch.eye(2)):
                    assert getattr(matmul, "fp32_precision", torch.get_float32_matmul_precision()) in (
                        "ieee",
                        "highest",
                    )
                    raise ZeroDivisionError
                assert torch.get_float32_matmul_precision() == setting
            finally:
                torch.set_float32_matmul_precision(before)

    @pytest.mark.parametrize("setting", ["high", "medium"])
    def test_of_float32(self, setting, torch, calls):
        expected, before = calls(), torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision(setting)
            for x, y in zip(calls(), expected, strict=True):
                assert torch.equal(x, y)
        finally:
            torch.set_float32_matmul_precision(before)

    @pytest.mark.parametrize("kind", ["bfloat16", "float16"])
    def test_of_autocast(self, kind, torch, calls):
        expected = calls()
        with torch.autocast("cpu", dtype=getattr(torch, kind)):
            for x, y in zip(calls(), expected, strict=True):
                assert x.dtype == y.dtype
                assert torch.equal(x, y)
            assert torch.is_autocast_enabled("cpu")

    def test_of_float16_on_a_gpu_are_summed_in_float32(self, torch):
        """The setting exists without a GPU, too."""
        from matsign.backends import torch_precision

        matmul = torch.backends.cuda.matmul
        if not hasattr(matmul, "fp32_precision"):
            pytest.skip("PyTorch before 2.9")
        before = matmul.allow_fp16_accumulation
        try:
            matmul.allow_fp16_accumulation = True
            with torch_precision._float32_products(cuda=True):
                assert not matmul.allow_fp16_accumulation
            assert matmul.allow_fp16_accumulation
        finally:
            matmul.allow_fp16_accumulation = before

    def test_a_setting_of_all_there_is_goes_on_being_one(self, torch):
        owners = torch.backends, getattr(torch.backends.mkldnn, "matmul", None)
        if not hasattr(owners[1], "fp32_precision"):
            pytest.skip("PyTorch before 2.9 has one setting")
        before = [owner.fp32_precision for owner in owners]
        try:
            owners[1].fp32_precision = "none"
            owners[0].fp32_precision = "tf32"
            msign(torch.eye(3))
            assert owners[1].fp32_precision == "tf32"
            owners[0].fp32_precision = "ieee"
            assert owners[1].fp32_precision == "ieee"
        finally:
            for owner, setting in zip(owners, before, strict=True):
                owner.fp32_precision = setting


def test_powers_of_two_times_denormal_numbers(everywhere):
    backend = backends.load("jax" if everywhere.jit else everywhere.name)
    x = np.array([[[5e-324, -3e-310], [0.0, 2e-308]]])
    up = everywhere(lambda x: backend.exact_ldexp(x, backend.xp.zeros_like(x, dtype=backend.xp.int32) + 1070), x)
    np.testing.assert_array_equal(up, np.ldexp(x, 1070))
    down = everywhere(lambda x: backend.exact_ldexp(x, backend.xp.zeros_like(x, dtype=backend.xp.int32) - 1070), up)
    np.testing.assert_array_equal(down, x)
    np.testing.assert_array_equal(everywhere(backend.exponent, x), np.frexp(x)[1])
    np.testing.assert_array_equal(everywhere(backend.largest, x[:, :, :1]), [5e-324])


def test_eager_jax_arrays_are_converted_once_each_way(monkeypatch, rng):
    """The second call with a layout has NumPy's bits and uses no operation of JAX, which takes as long as the matrix."""
    jax = pytest.importorskip("jax")
    backend = backends.load("jax")
    a, q = gaussian(rng, 2, 4, 4, dtype="float32")
    arrays = [jax.numpy.asarray(x) for x in (a, q)]
    first = solve_continuous_lyapunov(*arrays)
    monkeypatch.setattr(backend, "bind", None)
    second = solve_continuous_lyapunov(*arrays)
    assert isinstance(second, jax.Array)
    assert second.sharding == first.sharding
    for x in (first, second):
        np.testing.assert_array_equal(x, solve_continuous_lyapunov(a, q))


def test_eager_jax_arrays_without_an_answer_are_errors_every_time():
    jax = pytest.importorskip("jax")
    for _ in range(3):
        with pytest.raises(SpectrumError, match="share an eigenvalue") as caught:
            solve_continuous_lyapunov(jax.numpy.diag(jax.numpy.asarray([1.0, -1.0])), jax.numpy.eye(2))
        assert isinstance(caught.value.value, jax.Array)


def test_large_batches_on_a_gpu_are_decomposed_in_chunks(monkeypatch, rng):
    """cuSOLVER would reserve hundreds of gigabytes for a million small matrices."""
    torch = pytest.importorskip("torch")
    backend = backends.load("torch")
    a = torch.from_numpy(rng.standard_normal((7, 3, 3)))
    expected = backend.svd(a), backend.eigh(a + a.mT)
    monkeypatch.setattr(backend, "on_cpu", lambda x: False)
    monkeypatch.setattr(backend, "_BATCHED_MEMBERS", 2)
    for values, others in zip((backend.svd(a), backend.eigh(a + a.mT)), expected, strict=True):
        for x, y in zip(values, others, strict=True):
            assert torch.equal(x, y)


def test_eigenvectors_are_asked_of_contiguous_tensors(monkeypatch, rng):
    """PyTorch 2.11 returned those of the transpose on CUDA: gradients of lqe were wrong there."""
    torch = pytest.importorskip("torch")
    usual = torch.linalg.eig

    def as_on_cuda(a):
        return usual(a if a.is_contiguous() else a.mT)

    monkeypatch.setattr(torch.linalg, "eig", as_on_cuda)
    a = torch.as_tensor(gaussian(rng, 1, 3, 3)).mT
    values, vectors = backends.load("torch").eig(a)
    assert torch.linalg.norm(a.to(vectors.dtype) @ vectors - vectors * values[:, None]) < 1e-13
