"""Every function on a GPU, against references on the CPU; skipped without one.

``MATSIGN_TEST_DEVICE=emulated`` runs them on a device that the CPU computes, to find tensors made on the wrong device.
"""

import contextlib
import os

import numpy as np
import pytest

import matsign
from derivatives import test_equations, test_functions
from keyword_arrays import by_position
from problems import PROBLEMS, as_tuple

torch = pytest.importorskip("torch")

EMULATED = os.environ.get("MATSIGN_TEST_DEVICE") == "emulated"
if EMULATED:
    from emulated_device import emulated, put
else:
    emulated = contextlib.nullcontext

    def put(x):
        return torch.as_tensor(x).cuda()


if not (EMULATED or torch.cuda.is_available()):
    pytest.skip("no GPU", allow_module_level=True)

pytestmark = pytest.mark.slow
DEVICE_TYPE = "emulated" if EMULATED else "cuda"
TOLERANCES = {"float64": 1e-9, "float32": 2e-3, "complex128": 1e-9}


@pytest.fixture(autouse=True)
def on_device():
    with emulated():
        yield


def arrays_there(arrays):
    return tuple(None if x is None else put(x) for x in arrays)


def arrays_here(value):
    """The results as NumPy arrays; all of them must be on the device."""
    parts = as_tuple(value)
    assert all(x.device.type == DEVICE_TYPE for x in parts if x is not None)
    return tuple(None if x is None else x.detach().cpu().numpy() for x in parts)


def check_near(value, expected, tolerance):
    for x, y in zip(value, expected, strict=True):
        if y is None:
            assert x is None
        else:
            assert x.shape == y.shape
            scale = np.linalg.norm(np.where(np.isfinite(y), y, 0))
            with np.errstate(invalid="ignore"):
                gap = np.where(x == y, 0, x - y)
            assert np.linalg.norm(gap) <= tolerance * max(scale, 1e-3)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_answers(problem, dtype, rng):
    if not problem.takes(dtype):
        pytest.skip("real arguments only")
    arrays = problem.make(rng, dtype)
    expected = as_tuple(problem.f(*(x.astype("complex128" if dtype == "complex128" else "float64") for x in arrays)))
    check_near(arrays_here(problem.f(*arrays_there(arrays))), expected, TOLERANCES[dtype])


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_batches(problem, rng):
    """Of three members, one of which holds NaN; the certificate, too."""
    arrays = problem.stacked(rng, 3)
    expected = as_tuple(problem.f(*arrays))
    check_near(arrays_here(problem.f(*arrays_there(arrays))), expected, 1e-9)
    arrays[0][1, 0, 0] = np.nan
    value = arrays_here(problem.f(*arrays_there(arrays), errors="nan"))
    check_near([x[::2] for x in value], [x[::2] for x in expected], 1e-9)
    assert any(np.isnan(x[1]).any() for x in value)
    try:
        _, certificate = matsign.certify(problem.f)(*arrays_there(arrays), errors="nan")
    except NotImplementedError:
        return
    converged = certificate.converged.cpu().numpy()
    assert converged.tolist() == [True, False, True]


@pytest.mark.parametrize("case", test_functions.CASES)
def test_derivatives_of_functions(case, rng):
    f, make = test_functions.CASES[case]
    check_derivatives(f, make(rng, "float64"), rng)


@pytest.mark.parametrize("case", test_equations.CASES + test_equations.FACTORS, ids=str)
def test_derivatives_of_equations(case, rng):
    arguments = case.make(rng, "float64")
    f = getattr(matsign, case.name)
    options = {k: v for k, v in case.options.items() if v is not None}

    def call(*given):
        given = iter(given)
        return by_position(f)(*(None if x is None else next(given) for x in arguments), **options)

    check_derivatives(call, [x for x in arguments if x is not None], rng)


def check_derivatives(f, arrays, rng):
    """First and second derivatives of a weighted sum along one direction, on the device and on the CPU."""
    directions = [rng.standard_normal(x.shape) for x in arrays]
    directions = [x + x.T if x.ndim == 2 and x.shape[0] == x.shape[1] else x for x in directions]
    weights = [rng.standard_normal(np.shape(x)) for x in as_tuple(f(*arrays)) if x is not None]

    def both(to):
        inputs = [to(x.copy()).requires_grad_() for x in arrays]
        results = [x for x in as_tuple(f(*inputs)) if x is not None]
        total = sum((r * to(w)).sum().real for r, w in zip(results, weights, strict=True) if r.requires_grad)
        first = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
        along = sum((g * to(d)).sum() for g, d in zip(first, directions, strict=True) if g is not None)
        second = torch.autograd.grad(along, inputs, allow_unused=True) if along.requires_grad else []
        return [None if x is None else x.detach().cpu().numpy() for x in (*first, *second)]

    check_near(both(put), both(torch.as_tensor), 1e-6)
