"""Right uses of the library as users write them: no type checker may report one, and each runs."""
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable
from typing import Any, assert_type

import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import scipy.signal
import torch
import xarray as xr

import matsign
from matsign import Certificate, Estimator, FiniteHorizonRegulator, Polar, Reduced, Regulator, optim

NDArray = np.ndarray[tuple[Any, ...], np.dtype[Any]]
Tensor = torch.Tensor

n: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.diag([2.0, 3.0])
t = torch.diag(torch.tensor([2.0, 3.0]))
j = jnp.asarray(n)
x = xr.DataArray(n, dims=("row", "column"))


def of_each_library() -> None:
    assert_type(matsign.msign(n), NDArray)
    assert_type(matsign.sqrtm(t), Tensor)
    assert_type(matsign.logm(x), xr.DataArray)
    chunks: da.Array = matsign.invsqrtm(da.from_array(np.stack([n, n])))
    assert chunks.compute().shape == (2, 2, 2)


def in_jax() -> None:
    assert_type(matsign.mcsgn(j), jax.Array)
    assert_type(matsign.certify(matsign.polar)(j), tuple[Polar[jax.Array], Certificate])
    assert_type(matsign.soft_threshold(j, jnp.array(0.1)), jax.Array)
    assert_type(jax.grad(lambda a: matsign.lqr(a, j, j, j).gain.sum())(j), Any)


def numbers_and_lists() -> None:
    assert_type(matsign.sqrtm([[4.0, 0], [0, 9]]), NDArray)
    assert_type(matsign.sqrtm([[[4j, 1], [0, 9]]]), NDArray)
    assert_type(matsign.sqrtm([n, n]), NDArray)
    assert_type(matsign.lqr(t[:1, :1], t[:1, :1], 1, 0.1), Regulator[Tensor])
    assert_type(matsign.lqr_finite_horizon(t, t, 1, 1, 2.0), FiniteHorizonRegulator[Tensor])
    assert_type(matsign.solve_differential_riccati(n, n, n, n, n, [0.0, 1.0]), NDArray)
    assert_type(matsign.dlqr_time_varying(t[None], t, 1, 1), FiniteHorizonRegulator[Tensor])
    assert_type(matsign.dlqr_finite_horizon(t, t, 1, 1, 3).gain, Tensor)
    assert_type(matsign.lqr([[0, 1], [0, 0]], ((0.0,), (1.0,)), n, 0.1), Regulator[NDArray])
    assert_type(matsign.mclip(t, 0.5, torch.tensor(2.0)), Tensor)
    assert_type(matsign.mclip(np.stack([n, n]), upper=[1.0, 2.0]), NDArray)


def results_have_no_dtype_and_no_shape() -> None:
    integers = np.eye(2, dtype=int)
    root: np.ndarray[tuple[int, int], np.dtype[np.float64]] = matsign.sqrtm(integers)
    poles: np.ndarray[tuple[int], np.dtype[np.complex128]] = matsign.lqr(n, n, n, n).poles
    shifted: np.ndarray[tuple[int, int], np.dtype[np.complex128]] = matsign.solve_sylvester(n, n, 1j * n)
    assert [a.dtype.kind for a in (root, poles, shifted)] == ["f", "c", "c"]


def records() -> None:
    u, h = matsign.polar(t)
    assert_type(u, Tensor)
    assert_type(matsign.polar(n).h, NDArray)
    gain, solution, poles = matsign.dlqr(n, n, n, n)
    assert_type(poles, NDArray)
    small = matsign.balanced_truncation(-t, t, t, 1)
    assert_type(small, Reduced[Tensor])
    assert_type(matsign.sqrtm_pair(t), tuple[Tensor, Tensor])
    assert_type(matsign.solve_continuous_are(n, n, n, n, s=n), NDArray)
    assert_type(matsign.solve_discrete_are(n, None, n, None, g=n, x0=n), NDArray)
    assert [gain.ndim, solution.ndim, h.ndim] == [2, 2, 2]


class Model:
    """As `scipy.signal.StateSpace` and `control.StateSpace`, whose types most users do not have."""

    def __init__(self) -> None:
        self.A, self.B, self.C, self.D, self.dt = -n, n, n, 0 * n, 0


def of_models(model: Model) -> None:
    assert_type(matsign.lqr(model, n, 0.1), Regulator[NDArray])
    assert_type(matsign.dlqr(model, q=[1.0, 2.0], r=0.1), Regulator[NDArray])
    assert_type(matsign.lqe(model, 1, n, errors="nan"), Estimator[NDArray])
    assert_type(matsign.hankel_singular_values(model), NDArray)
    assert_type(matsign.balanced_truncation(model, 1), Model)
    assert_type(matsign.lqg_balanced_truncation(model, 1), Model)


def models_of_scipy() -> None:
    model = scipy.signal.StateSpace(-n, n, n, 0 * n)
    assert matsign.lqr(model, 1, [0.1, 0.2]).gain.shape == (2, 2)
    assert matsign.balanced_truncation(model, order=1) is not model
    assert matsign.certify(matsign.lqr)(model, n, n)[1].converged


def vectors() -> None:
    assert_type(matsign.lqr(n, [1.0, 2.0], [1, 2], 0.1), Regulator[NDArray])
    assert_type(matsign.lqe(-t, t[0], t[0], 1.0, 0.1), Estimator[Tensor])
    assert_type(matsign.solve_continuous_are(n, np.ones(2), [1, 2], 1), NDArray)


def frames() -> None:
    frame = pd.DataFrame(n, index=["x", "v"], columns=["x", "v"])
    root: pd.DataFrame = matsign.sqrtm(frame)
    assert list(root.columns) == ["x", "v"]


def a_parameter_gives_a_tensor() -> None:
    weight = torch.nn.Linear(2, 2).weight
    assert_type(matsign.msign(weight), Tensor)
    updates: list[Tensor] = [matsign.msign(p) for p in (weight, weight)]
    assert len(updates) == 2


def certificates() -> None:
    assert_type(matsign.certify(matsign.msign)(n, tol=1e-3), tuple[NDArray, Certificate])
    assert_type(matsign.certify(matsign.solve_sylvester)(t, t, t), tuple[Tensor, Certificate])
    assert_type(matsign.certify(matsign.polar)(n), tuple[Polar[NDArray], Certificate])
    value, certificate = matsign.certify(matsign.solve_discrete_are)(t, t, t, t, s=None, errors="nan")
    assert_type(value, Tensor)
    if certificate.converged and certificate.backward_error < 1e-6:
        assert certificate.measures is not None
    both, certificate = matsign.certify(matsign.sqrtm)(np.stack([n, n]))
    assert certificate.forward_error.max() < 1
    assert_type(both, NDArray)


def derivatives() -> None:
    assert_type(matsign.frechet(matsign.mcsgn)(n, n), NDArray)
    assert_type(matsign.frechet(matsign.solve_sylvester)(t, t, t, None, None, t), Tensor)
    direction, _ = matsign.frechet(matsign.polar)(t, t)
    factor: float = matsign.condition(matsign.sqrtm)(n, rtol=1e-8)
    assert factor < 10
    assert direction.shape == (2, 2)


def trees() -> None:
    layers = {"in": t, "out": t.clone()}
    assert_type(matsign.each(matsign.msign)(layers, tol=1e-3), dict[str, Tensor])
    assert_type(matsign.each(matsign.rootm)([t, t], p=3), list[Tensor])
    factors = matsign.each(matsign.polar)(layers)
    assert factors["in"].u.shape == (2, 2)


def any_function(f: Callable[[Any], Any], unknown: Any) -> None:
    assert_type(matsign.msign(unknown), Any)
    matsign.certify(f)(unknown)
    matsign.msign(unknown).anything()


def errors() -> None:
    try:
        matsign.mcsgn([[0.0, 1.0], [-1.0, 0.0]])
    except matsign.SpectrumError as error:
        assert_type(error.members, list[tuple[int, ...]])


def optimisers() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    muon = optim.Muon(optim.param_groups(model), lr=0.02, split=1, schedule=[(1.5, -0.5, 0.0)])
    optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=torch.tensor(0.1))
    optim.Muon([{"params": [model[0].weight], "lr": 0.1}])
    optim.Muon((name, p) for name, p in model.named_parameters() if p.ndim == 2)
    assert_type(muon.step(lambda: torch.ones(())), Tensor | None)
    torch.optim.lr_scheduler.StepLR(muon, 10)


def transformations() -> None:
    params = {"kernel": j}
    labels = optim.param_labels(params)
    muon = optax.chain(optim.scale_by_msign(tol=1e-2, axes=labels.axes), optax.scale_by_learning_rate(0.1))
    state = muon.init(params)
    updates, state = muon.update(params, state, params)
    optax.apply_updates(params, updates)
    optim.scale_by_msign(axes=optim.MatrixAxes(inputs=0, outputs=1), momentum_dtype=jnp.bfloat16)
