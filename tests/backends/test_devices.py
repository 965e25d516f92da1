"""A device that is not the CPU: PyTorch's "meta", where tensors have shapes, dtypes and devices but no entries.

Code that would mix devices on a GPU raises here too.
"""

from functools import partial

import pytest

from matsign import backends, certify, msign
from matsign.backends import control_flow
from problems import PROBLEMS, as_tuple

torch = pytest.importorskip("torch")


def branch_key(f, arrays):
    """The code of a branch and of the functions it refers to, and the dtypes of its arrays."""
    if isinstance(f, partial):
        parts = [f.func, *f.args]
    else:
        parts = [f, *(cell.cell_contents for cell in f.__closure__ or ())]
    dtypes = []
    control_flow.tree_map(lambda x: dtypes.append(x.dtype), arrays)
    return *(x.__code__ for x in parts if hasattr(x, "__code__")), *dtypes


@pytest.fixture(autouse=True)
def valueless(monkeypatch):
    """As during the capture of a CUDA graph, with two steps of each loop, but one of inner loops and of a loop whose step
    has been taken before, and each branch once for the same dtypes. Results of the host have no entries either.
    """
    backend, loop, within, before = backends.load("torch"), control_flow.unrolled_loop, [], set()
    first_and_second, branches = backend.masked_cond, set()

    def once(mask, yes, no, *arrays):
        """Both branches, or the other one if one has been run before: their results have the same shapes and dtypes."""
        keys = [branch_key(f, arrays) for f in (yes, no)]
        known = [key in branches for key in keys]
        branches.update(keys)
        if any(known) and yes is not control_flow.first:
            return (no if known[0] else yes)(*arrays)
        return first_and_second(mask, yes, no, *arrays)

    def few(step, state, limit, where):
        code = step.__code__
        steps = 1 if within or code in before else 2
        within.append(code)
        try:
            return loop(step, state, min(limit, steps), where)
        finally:
            before.add(within.pop())

    monkeypatch.setattr(control_flow, "unrolled_loop", few)
    monkeypatch.setattr(backend, "masked_cond", once)
    monkeypatch.setattr(backend, "rare_cond", once)
    monkeypatch.setattr(backend, "capturing", lambda: True)
    monkeypatch.setattr(backend, "fast_half_dtype", lambda x: "float16")
    monkeypatch.setattr(
        backend, "host_callback", lambda f, like, *arrays: control_flow.tree_map(torch.empty_like, like)
    )


def check(value, dtype, *arrays):
    assert all(x.device.type == "meta" for x in value)
    assert all(x.dtype == dtype for x in value)
    sum(x.abs().sum() for x in value).backward()
    assert all(x.grad.device.type == "meta" for x in arrays)


# These take the path of the same function in continuous time, or of the factor of a Gramian.
TWINS = {"discrete_extremal_solutions", "discrete_gramian", "discrete_lyapunov_factor", "gramian", "solve_discrete_are"}


@pytest.mark.slow
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.name not in TWINS], ids=lambda p: p.name)
def test_values_gradients_and_certificates_stay_there(problem, rng):
    arrays = [torch.from_numpy(x).to("meta").requires_grad_() for x in problem.make(rng, "float64")]
    value, certificate = certify(problem.f)(*arrays)
    check(as_tuple(value), torch.float64, *arrays)
    numbers = [x for x in certificate if isinstance(x, torch.Tensor)]
    assert len(numbers) >= 3
    assert all(x.device.type == "meta" for x in numbers)


@pytest.mark.parametrize("options", [{"steps": 4}, {"schedule": "muon"}, {"schedule": "cans"}, {"tol": 0.05}], ids=str)
@pytest.mark.parametrize("shape", [(8, 8), (3, 20, 8), (2, 8, 40)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_msign_in_few_steps(options, shape, dtype):
    m = torch.empty(shape, dtype=getattr(torch, dtype), device="meta").requires_grad_()
    check((msign(m, **options),), m.dtype, m)
    assert msign(m, **options, **({} if "tol" in options else {"precision": "half"})).shape == shape
