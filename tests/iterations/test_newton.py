"""The iterations: batches with members of very different speed, and the limits of each iteration."""

import numpy as np
import pytest

import direct
from matrices import gaussian, similar, splitting, stable, with_singular_values
from matsign import backends
from matsign.iterations import block_structures, minimax, newton


@pytest.fixture
def backend(on):
    return backends.load(on.name)


def test_newton_on_a_batch_of_fast_and_slow_members(on, backend, rng):
    members = [
        np.diag([1.0, -1, 1]),
        np.diag([1, -1e-6, 3.0]),
        splitting(rng, 3),
        similar(rng, np.diag([1e-8, -1, 1.0])),
    ]
    found = on.in_one_program(lambda m: newton.newton(backend, block_structures.Dense(m)), np.stack(members))
    s, steps = np.asarray(found.value.m), np.asarray(found.steps)
    for k, m in enumerate(members):
        np.testing.assert_allclose(s[k], direct.sign_by_eigenvectors(m), atol=1e-7)
    assert steps[0] < steps[2]
    assert steps.max() <= 8 - round(np.log2(2e-16)) + 6


def test_newton_keeps_a_frozen_member_to_the_bit(on, backend, rng):
    """A converged member does not change while others continue."""
    fast, slow = stable(rng, 3), similar(rng, np.diag([1e-9, -1, 1.0]))

    def sign(m):
        return newton.newton(backend, block_structures.Dense(m)).value.m

    alone, both = (on.in_one_program(sign, x) for x in (fast[None], np.stack([fast, slow])))
    np.testing.assert_allclose(np.asarray(both)[0], np.asarray(alone)[0], rtol=0, atol=1e-14)


def test_purify_sends_values_to_zero_and_one(on, backend, rng):
    values = [1.1, 0.9, 0.83, 0.8, 0.3, 1e-8]
    x = with_singular_values(rng, 8, 6, values)
    found = on.in_one_program(lambda x: newton.purify(backend, block_structures.Dilation(x), backend.ones(x)), x[None])
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    expected = (u[:, :3]) @ vh[:3]
    np.testing.assert_allclose(np.asarray(found.value.c)[0], expected, atol=1e-14)


def test_separable_sylvester(on, backend, rng):
    a, b, q = stable(rng, 4), stable(rng, 3), gaussian(rng, 4, 3)
    x = on.in_one_program(lambda *abq: newton.separable_sylvester(backend, *abq), *(x[None] for x in (a, b, q)))
    np.testing.assert_allclose(x[0], direct.sylvester_by_kronecker(a, b, q), rtol=1e-12)


def test_run_applies_the_steps_in_order(on, backend, rng):
    x = gaussian(rng, 2, 3, 3)
    steps = (minimax.Step(2.0, 1.0, -0.5), minimax.Step(1.0, -0.3))
    found = on.in_one_program(lambda x: newton.run_schedule(backend, block_structures.Dense(x), steps).m, x)
    y = 2 * x + x @ x @ x - 0.5 * x @ x @ x @ x @ x
    np.testing.assert_allclose(found, y - 0.3 * y @ y @ y, rtol=1e-10)
