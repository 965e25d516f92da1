"""A rule for all solvers: eager loops shrink to the members that have not converged."""

import functools

import numpy as np
import pytest

from matsign import backends
from problems import PROBLEMS

COUNT = 13  # members of a stack: a number that is not a size of a matrix here


def arrays_in(x):
    """Every array in nested tuples and lists."""
    if isinstance(x, np.ndarray):
        yield x
    elif isinstance(x, (tuple, list)):
        for part in x:
            yield from arrays_in(part)


def held_by(f):
    """Every array that a function refers to by its closure or defaults, or by functions in these."""
    if isinstance(f, functools.partial):
        kept = [f.func, *f.args, *f.keywords.values()]
    else:
        cells = getattr(f, "__closure__", None) or ()
        kept = [c.cell_contents for c in cells if c != f] + list(getattr(f, "__defaults__", None) or ())
    for x in kept:
        yield from arrays_in(x)
        if callable(x) and not isinstance(x, type) and x is not f and hasattr(x, "__closure__"):
            yield from held_by(x)


@pytest.fixture
def loops(monkeypatch):
    """The steps of all loops that NumPy runs."""
    numpy, steps = backends.load("numpy"), []
    loop = numpy.loop

    def recorded(step, *args):
        steps.append((step, [x.shape for x in held_by(step)]))
        return loop(step, *args)

    monkeypatch.setattr(numpy, "loop", recorded)
    return steps


def test_a_kept_stack_is_seen():
    stack = np.zeros((COUNT, 2, 2))

    def inner(x):
        return x + stack

    assert [x.shape for x in held_by(lambda x: inner(x))] == [stack.shape]
    assert [x.shape for x in held_by(functools.partial(lambda y, x: x, stack))] == [stack.shape]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_no_step_keeps_the_whole_stack(problem, loops, rng):
    """The step of a loop gets the members that have not converged; a stack in a closure would have all members."""
    problem.f(*problem.stacked(rng, COUNT))
    kept = [(step.__qualname__, shapes) for step, shapes in loops if any(s and s[0] == COUNT for s in shapes)]
    assert not kept
