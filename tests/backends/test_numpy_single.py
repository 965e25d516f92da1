"""One matrix without the axis of a stack: every operation has the bits that it has on a stack of one."""

import numpy as np
import pytest

from matrices import DTYPES, adjoint, gaussian
from matsign import solve_continuous_lyapunov, solve_discrete_lyapunov, solve_sylvester
from matsign.backends import numpy as numpy_stacks
from matsign.backends import numpy_single
from matsign.linalg import stacks


def same(one, stack):
    for x, y in zip(
        one if isinstance(one, tuple) else (one,), stack if isinstance(stack, tuple) else (stack,), strict=True
    ):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y[0])


OPERATIONS = {
    "norm": lambda backend, a, b: backend.norm(a),
    "trace": lambda backend, a, b: backend.trace(a),
    "inner": lambda backend, a, b: stacks.inner(backend, a, b),
    "inv": lambda backend, a, b: backend.inv(a),
    "solve": lambda backend, a, b: backend.solve(a, b),
    "cholesky": lambda backend, a, b: backend.cholesky(a @ adjoint(a)),
    "log_determinant": lambda backend, a, b: backend.log_determinant(a),
    "addmm": lambda backend, a, b: backend.addmm(1.0, a, -0.5, a, b),
    "ones": lambda backend, a, b: backend.ones(a),
    "no_counts": lambda backend, a, b: backend.int_zeros(a),
    "normalise": lambda backend, a, b: stacks.scale_to_unit(backend, 1e-9 * a, b),
    "ldexp": lambda backend, a, b: backend.ldexp(a, stacks.broadcast_scalar(backend.exponent(backend.norm(a)) - 90)),
    "far ldexp": lambda backend, a, b: backend.ldexp(
        a, stacks.broadcast_scalar(backend.exponent(backend.norm(a)) - 140)
    ),
    "maximum": lambda backend, a, b: backend.xp.maximum(backend.norm(a), backend.norm(b)),
    "where": lambda backend, a, b: backend.xp.where(backend.norm(a) > backend.norm(b), backend.norm(a), 1.0),
    "where of matrices": lambda backend, a, b: backend.xp.where(
        stacks.broadcast_scalar(backend.norm(a) > backend.norm(b)), a, b
    ),
    "split": lambda backend, a, b: backend.masked_cond(
        backend.norm(a) > backend.norm(b), lambda a, b: a, lambda a, b: b, a, b
    ),
    "choose": lambda backend, a, b: backend.masked_select(backend.norm(a) > backend.norm(b), a, b),
    "host": lambda backend, a, b: backend.host_callback(lambda a, b: a + b, a, a, b),
    "loop": lambda backend, a, b: backend.loop(
        lambda x: ((x[0] / 2, x[1]), backend.norm(x[0]) > backend.norm(x[1])), (a, b / 8), 9
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_operations(name, dtype, rng):
    operation = OPERATIONS[name]
    for n in (1, 2, 5, 20, 120):
        a, b = gaussian(rng, 2, n, n, dtype=dtype)
        same(operation(numpy_single, a, b), operation(numpy_stacks, a[None], b[None]))


def test_a_solver_gets_matrices_and_numbers():
    seen = []
    found = numpy_single.call(
        lambda backend, a, q, **options: seen.append((backend, a.shape, q, options)) or a,
        np.ones((1, 2, 2)),
        None,
        way=1,
    )
    assert seen == [(numpy_single, (2, 2), None, {"way": 1})]
    assert found.shape == (2, 2)


@pytest.mark.parametrize("f", [solve_sylvester, solve_continuous_lyapunov, solve_discrete_lyapunov])
def test_one_matrix_takes_this_way(f, monkeypatch, rng):
    calls, call = [], numpy_single.call
    monkeypatch.setattr(numpy_single, "call", lambda *args, **options: calls.append(1) or call(*args, **options))
    a, q = gaussian(rng, 2, 6, 6)
    for arrays in ((a, q), (a[None], q[None])):
        f(*(arrays if f is not solve_sylvester else (arrays[0], *arrays)))
    assert calls == [1, 1]
    stack = np.stack([a, a]), np.stack([q, q])
    f(*(stack if f is not solve_sylvester else (stack[0], *stack)))
    assert calls == [1, 1]
