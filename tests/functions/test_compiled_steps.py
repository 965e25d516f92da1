"""msign with a fixed number of steps under torch.compile: schedules are constants, and one compiled code serves many shapes."""

from __future__ import annotations

import pytest

from matsign import msign
from matsign.iterations import minimax

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.compiles, pytest.mark.filterwarnings("ignore:Dynamo detected:UserWarning")]

CALLS = {
    "name": lambda a: msign(a, schedule="muon"),
    "rows": lambda a: msign(a, schedule=[(3.4445, -4.7750, 2.0315)], steps=5),
    "tolerance": lambda a: msign(a, tol=1e-2, rtol=1e-3, method="polynomial"),
}
every_call = pytest.mark.parametrize("f", CALLS.values(), ids=CALLS)


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


@pytest.mark.parametrize("options", [{"steps": 3}, {"rtol": 1e-3, "method": "polynomial"}], ids=["steps", "tolerance"])
def test_a_design_is_never_followed(monkeypatch, options):
    """Tracing a graph break is an error here, calling it does nothing."""
    designed = []

    def greedy(*args, greedy=minimax._greedy, **kwargs):
        torch._dynamo.graph_break()
        designed.append(args)
        return greedy(*args, **kwargs)

    monkeypatch.setattr(minimax, "_greedy", greedy)
    f, a = lambda a: msign(a, tol=0.0123456, **options), torch.randn(2, 7, 3)  # a tolerance that no other test asks for
    value = torch.compile(f, fullgraph=True, backend="eager")(a)
    assert designed
    torch.testing.assert_close(value, f(a))


@every_call
def test_one_code_for_sizes_that_are_left_open(f):
    compiled_for_open_sizes(f)


def compiled_for_open_sizes(f):
    """One code for sizes with the same steps in the same order: here up to 32, tall, and far from square."""
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="eager")
    first, *others = (torch.randn(shape) for shape in ((3, 24, 9), (3, 25, 9), (5, 30, 9), (2, 22, 9)))
    torch.testing.assert_close(compiled(first), f(first))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for a in others:
            torch.testing.assert_close(compiled(a), f(a))
    return compiled


def test_sizes_that_ask_for_other_steps():
    f = lambda a: msign(a, steps=3)  # noqa: E731
    compiled = compiled_for_open_sizes(f)
    for shape in ((2, 9, 10), (70, 5)):
        a = torch.randn(shape)
        torch.testing.assert_close(compiled(a), f(a))


@pytest.mark.parametrize("options", [{"steps": 3}, {"tol": 0.05, "method": "polynomial"}], ids=["steps", "tol"])
def test_options_that_are_arguments(options):
    """With `dynamic` their numbers would be symbolic."""

    def f(a, *values):
        return msign(a, **dict(zip(options, values, strict=True)))

    compiled, a = torch.compile(f, fullgraph=True, dynamic=True, backend="eager"), torch.randn(24, 9)
    torch.testing.assert_close(compiled(a, *options.values()), f(a, *options.values()))


def test_the_gradient_with_sizes_left_open():
    f = lambda a: msign(a, steps=2).pow(3).sum()  # noqa: E731
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="eager")
    a = torch.randn(3, 12, 5, dtype=torch.float64, requires_grad=True)
    (found,), (expected,) = (torch.autograd.grad(g(a), a) for g in (compiled, f))
    torch.testing.assert_close(found, expected)
