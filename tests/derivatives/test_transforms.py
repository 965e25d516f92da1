"""What PyTorch and JAX do to functions, done to ours: gradients, maps, compilation, and any composition of them."""

import logging

import numpy as np
import pytest

import matsign
from conftest import HAVE
from matrices import gaussian


def plant(rng, *batch):
    n = 3
    a, b = gaussian(rng, *batch, n, n), gaussian(rng, *batch, n, 2)
    return a, b, np.broadcast_to(np.eye(n), a.shape).copy(), np.broadcast_to(np.eye(2), (*batch, 2, 2)).copy()


def spread(rng, *batch):
    return gaussian(rng, *batch, 4, 4)


FUNCTIONS = {
    "mcsgn": (matsign.mcsgn, lambda rng, *batch: (spread(rng, *batch),)),
    "msign": (matsign.msign, lambda rng, *batch: (gaussian(rng, *batch, 5, 3),)),
    "sqrtm": (matsign.sqrtm, lambda rng, *batch: (spread(rng, *batch) + 5 * np.eye(4),)),
    "solve_sylvester": (
        matsign.solve_sylvester,
        lambda rng, *batch: (
            spread(rng, *batch) + 5 * np.eye(4),
            gaussian(rng, *batch, 2, 2) + 5 * np.eye(2),
            gaussian(rng, *batch, 4, 2),
        ),
    ),
    "solve_continuous_are": (matsign.solve_continuous_are, plant),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def msign_in_four(x):
    return matsign.msign(x, steps=4)


def sum_of_cubes(f):
    return lambda *xs: (f(*xs) ** 3).sum()


@pytest.mark.skipif(not HAVE["torch"], reason="torch is not installed")
class TestTorch:
    @property
    def torch(self):
        import torch

        return torch

    def tensors(self, name, rng, *batch):
        f, make = FUNCTIONS[name]
        return f, tuple(self.torch.from_numpy(x) for x in make(rng, *batch))

    def gradients(self, f, xs):
        xs = [x.clone().requires_grad_() for x in xs]
        return self.torch.autograd.grad(sum_of_cubes(f)(*xs), xs)

    @every_function
    def test_grad(self, name, rng):
        f, xs = self.tensors(name, rng)
        places = tuple(range(len(xs)))
        for x, y in zip(self.torch.func.grad(sum_of_cubes(f), places)(*xs), self.gradients(f, xs), strict=True):
            self.torch.testing.assert_close(x, y, rtol=0, atol=0)

    @every_function
    def test_vmap_has_the_bits_of_the_batch(self, name, rng):
        f, xs = self.tensors(name, rng, 6)
        assert self.torch.equal(self.torch.vmap(f)(*xs), f(*xs))
        moved = tuple(x.movedim(0, -1) for x in xs)
        assert self.torch.equal(self.torch.vmap(f, in_dims=-1)(*moved), f(*xs))

    @every_function
    def test_vmap_of_grad(self, name, rng):
        f, xs = self.tensors(name, rng, 3)
        places = tuple(range(len(xs)))
        mapped = self.torch.vmap(self.torch.func.grad(sum_of_cubes(f), places))(*xs)
        for x, y in zip(mapped, self.gradients(f, xs), strict=True):
            self.torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)

    @every_function
    def test_jacobian_and_its_derivative(self, name, rng):
        f, xs = self.tensors(name, rng)
        jacobian = self.torch.func.jacrev(f)(*xs)
        rest = xs[1:]
        expected = self.torch.autograd.functional.jacobian(lambda x: f(x, *rest), xs[0])
        self.torch.testing.assert_close(jacobian, expected, rtol=1e-10, atol=1e-10)
        hessian = self.torch.func.jacrev(self.torch.func.grad(sum_of_cubes(f)))(*xs)
        flat = hessian.reshape(xs[0].numel(), -1)
        self.torch.testing.assert_close(flat, flat.T, rtol=1e-8, atol=1e-8)

    def test_vmap_over_one_argument_of_several(self, rng):
        f, (a, b, q) = self.tensors("solve_sylvester", rng)
        qs = self.torch.stack([q, 2 * q, -q])
        for batch in (1, 2):  # the others may be batches themselves
            aa = a.expand(batch, 4, 4) if batch > 1 else a
            mapped = self.torch.vmap(f, in_dims=(None, None, 0))(aa, b, qs)
            self.torch.testing.assert_close(mapped[1], f(aa, b, 2 * q))

    def test_a_bad_member_names_itself_and_leaves_the_gradients_of_others(self, rng):
        x = self.torch.from_numpy(spread(rng, 3))
        x[1] = np.nan
        with pytest.raises(matsign.SpectrumError, match="member"):
            self.torch.vmap(matsign.mcsgn)(x)
        x.requires_grad_()
        matsign.mcsgn(x, errors="nan").sum().backward()
        good = self.gradients(lambda y: matsign.mcsgn(y) ** (1 / 3), (x.detach()[::2],))
        assert x.grad[1].isnan().all()
        assert good[0].shape == (2, 4, 4)
        assert x.grad[::2].isfinite().all()

    def test_functional_call(self, rng):
        torch = self.torch

        class Orthogonal(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.from_numpy(gaussian(rng, 4, 3)))

            def forward(self, x):
                return x @ matsign.msign(self.weight)

        layer, x = Orthogonal(), torch.from_numpy(gaussian(rng, 2, 4))
        call = lambda p: torch.func.functional_call(layer, p, (x,)).pow(3).sum()  # noqa: E731
        found = torch.func.grad(call)(dict(layer.named_parameters()))["weight"]
        call(dict(layer.named_parameters())).backward()
        torch.testing.assert_close(found, layer.weight.grad)

    def test_half_precision_and_mixed_dtypes_get_gradients_of_their_own(self, rng):
        x = self.torch.from_numpy(gaussian(rng, 4, 3)).bfloat16().requires_grad_()
        matsign.msign(x).float().pow(3).sum().backward()
        assert x.grad.dtype == self.torch.bfloat16
        a = self.torch.from_numpy(spread(rng) + 5 * np.eye(4)).requires_grad_()
        q = self.torch.from_numpy(gaussian(rng, 4, 4)).float().requires_grad_()
        i = 5 * self.torch.eye(4, dtype=self.torch.complex128)
        abs(matsign.solve_sylvester(a, i, q)).sum().backward()
        assert (a.grad.dtype, q.grad.dtype) == (self.torch.float64, self.torch.float32)

    def test_the_tape_holds_inputs_and_result_only(self, rng):
        """Whatever the number of steps."""
        x = self.torch.from_numpy(gaussian(rng, 60, 60)).requires_grad_()
        kept = []
        with self.torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            matsign.mcsgn(x)
        assert sum(kept) <= 2 * 60 * 60 + 60

    @pytest.mark.compiles
    def test_compile_around_a_graph_break(self, rng):
        f = lambda x: (matsign.mcsgn(2 * x) + 1).pow(2).sum()  # noqa: E731
        x = self.torch.from_numpy(spread(rng)).requires_grad_()
        compiled = self.torch.compile(f)
        value = compiled(x)
        value.backward()
        self.torch.testing.assert_close(value, f(x))
        (expected,) = self.torch.autograd.grad(f(x), x)
        self.torch.testing.assert_close(x.grad, expected)

    @pytest.mark.compiles
    def test_a_compiled_gradient_is_right_or_nan(self, rng):
        """Condition numbers within and beyond what its fixed number of doublings can do."""
        f = lambda x: (msign_in_four(x) ** 3).sum()  # noqa: E731
        compiled = self.torch.compile(f, fullgraph=True, backend="aot_eager")
        u, v = (np.linalg.qr(gaussian(rng, 4, 4))[0] for _ in range(2))
        for condition in (1e2, 1e3, 1e9):
            x = self.torch.from_numpy(u * np.geomspace(1, 1 / condition, 4) @ v).requires_grad_()
            (found,) = self.torch.autograd.grad(compiled(x), x)
            (expected,) = self.torch.autograd.grad(f(x), x)
            assert expected.isfinite().all()
            if condition > 1e5 and found.isnan().all():
                continue
            self.torch.testing.assert_close(found, expected)

    @pytest.mark.compiles
    @pytest.mark.filterwarnings("ignore:Dynamo detected:UserWarning")
    def test_compile_whole_where_the_schedule_is_fixed(self, rng):
        f = lambda x: (matsign.msign(2 * x, method="polynomial", tol=1e-2, rtol=1e-2) + 1).pow(2).sum()  # noqa: E731
        x = self.torch.from_numpy(gaussian(rng, 5, 3)).requires_grad_()
        value = self.torch.compile(f, fullgraph=True, backend="aot_eager")(x)
        value.backward()
        self.torch.testing.assert_close(value, f(x))
        (expected,) = self.torch.autograd.grad(f(x), x)
        self.torch.testing.assert_close(x.grad, expected)


@pytest.mark.skipif(not HAVE["jax"], reason="jax is not installed")
@pytest.mark.compiles
class TestJax:
    @property
    def jax(self):
        import jax

        return jax

    def arrays(self, name, rng, *batch):
        f, make = FUNCTIONS[name]
        return f, tuple(self.jax.numpy.asarray(x) for x in make(rng, *batch))

    @every_function
    def test_vmap_has_the_bits_of_the_batch(self, name, rng):
        f, xs = self.arrays(name, rng, 3)
        np.testing.assert_array_equal(self.jax.vmap(f)(*xs), f(*xs))

    def test_jacobians_forward_and_back(self, rng):
        f, xs = self.arrays("mcsgn", rng)
        forward, back = self.jax.jacfwd(f)(*xs), self.jax.jacrev(f)(*xs)
        np.testing.assert_allclose(forward, back, atol=1e-12 * np.abs(back).max())
        value, push = self.jax.linearize(lambda x: f(x, *xs[1:]), xs[0])
        np.testing.assert_allclose(push(xs[0]), np.tensordot(back, xs[0], 2), atol=1e-11)
        np.testing.assert_allclose(value, f(*xs), atol=1e-14)

    @pytest.mark.parametrize("name", ["mcsgn", "solve_continuous_are"])
    def test_compiled_gradients_and_batches_of_them(self, name, rng):
        f, xs = self.arrays(name, rng, 2)
        g = self.jax.grad(sum_of_cubes(f))
        mapped = self.jax.jit(self.jax.vmap(g))(*xs)
        np.testing.assert_allclose(mapped, g(*xs), rtol=1e-9, atol=1e-9)

    def test_one_argument_traced_and_the_others_not(self, rng):
        f, (a, b, q) = self.arrays("solve_sylvester", rng)
        g = lambda q: f(a, b, q).sum()  # noqa: E731
        expected = self.jax.grad(lambda a, b, q: f(a, b, q).sum(), argnums=2)(a, b, q)
        np.testing.assert_allclose(self.jax.grad(g)(q), expected, atol=1e-14)
        np.testing.assert_allclose(self.jax.jit(g)(q), g(q), atol=1e-13)
        np.testing.assert_allclose(self.jax.vmap(g)(q[None])[0], g(q), atol=1e-13)

    def test_hessian(self, rng):
        f, (x,) = self.arrays("msign", rng)
        found = self.jax.jit(self.jax.hessian(sum_of_cubes(f)))(x).reshape(15, 15)
        np.testing.assert_allclose(found, found.T, atol=1e-12)

    def test_failures_under_jit_are_nan_in_their_members(self, rng):
        x = spread(rng, 3)
        x[1] = [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        value, gradient = self.jax.jit(self.jax.value_and_grad(lambda x: self.jax.numpy.nansum(matsign.mcsgn(x))))(x)
        assert np.isfinite(value)
        assert np.isnan(gradient[1]).all()
        alone = self.jax.grad(lambda x: matsign.mcsgn(x).sum())(self.jax.numpy.asarray(x[::2]))
        np.testing.assert_allclose(gradient[::2], alone, atol=1e-12)

    def test_inside_scan_and_checkpoint(self, rng):
        _, (x,) = self.arrays("msign", rng)

        def scanned(x):
            body = self.jax.checkpoint(lambda c, _: (matsign.msign(c) + 0.1 * x, None))
            return self.jax.lax.scan(body, x, None, length=3)[0].sum()

        def written(x):
            c = x
            for _ in range(3):
                c = matsign.msign(c) + 0.1 * x
            return c.sum()

        np.testing.assert_allclose(self.jax.grad(scanned)(x), self.jax.grad(written)(x), atol=1e-13)

    def test_nothing_is_compiled_again_for_the_same_shapes(self, rng, caplog):
        f, (x,) = self.arrays("sqrtm", rng)
        gradient, compiled = self.jax.grad(sum_of_cubes(f)), self.jax.jit(self.jax.grad(sum_of_cubes(f)))
        other = 1.1 * x
        gradient(x), compiled(x)
        with self.jax.log_compiles(), caplog.at_level(logging.WARNING):
            gradient(other), compiled(other)
        assert not [r for r in caplog.records if "Compiling" in r.getMessage()]
