"""Wrong uses. A comment names the error that mypy and that pyright must report on its line; they report no other.

``-`` stands for none. Of arrays of two libraries they make a type without attributes, or a union, and report its first use; and
pyright lets a list become whatever is wanted.
"""

import jax.numpy as jnp
import numpy as np
import torch

import matsign
from matsign import optim

n = np.eye(2)
t = torch.eye(2)
j = jnp.eye(2)
model = torch.nn.Linear(2, 2)


def results() -> None:
    matsign.msign(n).foo  # attr-defined, reportAttributeAccessIssue
    matsign.sqrtm(t).astype(float)  # attr-defined, reportAttributeAccessIssue
    matsign.mcsgn(j).numpy()  # attr-defined, reportAttributeAccessIssue
    torch.trace(matsign.msign(n))  # arg-type, reportArgumentType
    tensor: torch.Tensor = matsign.msign(n)  # assignment, reportAssignmentType
    array: np.ndarray = matsign.sqrtm(t)  # arg-type, reportAssignmentType
    number: float = matsign.mcsgn(n)  # assignment, reportAssignmentType
    matsign.polar(t).s  # attr-defined, reportAttributeAccessIssue
    matsign.lqr(n, n, n, n).gian  # attr-defined, reportAttributeAccessIssue
    matsign.lqr(t, t, t, t).poles.foo  # attr-defined, reportAttributeAccessIssue
    u, s, vh = matsign.polar(t)  # misc, reportAssignmentType
    k, x = matsign.lqr(n, n, n, n)  # misc, reportAssignmentType
    root, inverse, more = matsign.sqrtm_pair(n)  # misc, reportAssignmentType
    from_list: torch.Tensor = matsign.mcsgn([[1.0]])  # assignment, -
    matsign.solve_sylvester(t, t, t).todense()  # attr-defined, reportAttributeAccessIssue


def arguments() -> None:
    matsign.msign("M.npy")  # arg-type, reportArgumentType
    matsign.msign(None)  # arg-type, reportArgumentType
    matsign.msign(model)  # arg-type, reportArgumentType
    matsign.msign(model.bias.grad)  # arg-type, reportArgumentType
    matsign.msign()  # call-arg, reportCallIssue
    matsign.msign(n, 1e-3)  # call-arg, reportCallIssue
    matsign.msign(n, tolerance=1e-3)  # call-arg, reportCallIssue
    matsign.msign(n, tol="1e-3")  # arg-type, reportArgumentType
    matsign.msign(n, schedule=5)  # arg-type, reportArgumentType
    matsign.rootm(n)  # call-arg, reportCallIssue
    matsign.rootm(n, 0.5)  # arg-type, reportArgumentType
    matsign.mclip(n, "low")  # arg-type, reportArgumentType
    matsign.solve_continuous_are(n, n, n, n, None, None, "no")  # arg-type, reportArgumentType
    matsign.lqr(n, n, n, r=n, qq=n)  # call-overload, reportCallIssue
    matsign.sqrt(n)  # attr-defined, reportAttributeAccessIssue
    torch.trace(matsign.solve_sylvester(n, t, t))  # arg-type, reportArgumentType
    matsign.lqr(t, t, j, t).gain.mT  # attr-defined, -
    matsign.lqr(t, t, j, t).gain.numpy()  # attr-defined, reportAttributeAccessIssue


def functions_of_functions() -> None:
    matsign.certify(matsign.msign)(n).shape  # attr-defined, reportAttributeAccessIssue
    matsign.certify(matsign.msign)(n)[0].foo  # attr-defined, reportAttributeAccessIssue
    matsign.certify(matsign.msign)(n)[1].error  # attr-defined, reportAttributeAccessIssue
    matsign.certify(matsign.solve_sylvester)(t, t)  # call-arg, reportCallIssue
    matsign.certify(matsign.solve_sylvester)(t, t, t, metod="auto")  # call-arg, reportCallIssue
    matsign.certify(matsign.polar)(t)[0].s  # attr-defined, reportAttributeAccessIssue
    matsign.certify(n)  # arg-type, reportArgumentType
    matsign.condition(matsign.sqrtm)(n, tol=1)  # call-arg, reportCallIssue
    matsign.frechet(matsign.sqrtm)(t, t).foo  # attr-defined, reportAttributeAccessIssue
    matsign.frechet(matsign.sqrtm)(n, "n")  # arg-type, reportArgumentType
    matsign.each(matsign.msign)([n], tolerance=1)  # call-arg, reportCallIssue
    matsign.each(matsign.msign)({"in": t})["in"].foo  # attr-defined, reportAttributeAccessIssue
    matsign.each(matsign.polar)([n], tolerance=1)  # call-arg, reportCallIssue


def optimisers() -> None:
    optim.Moun  # attr-defined, reportAttributeAccessIssue
    optim.Muon(model)  # arg-type, reportArgumentType
    optim.Muon(model.parameters(), lr="0.1")  # arg-type, reportArgumentType
    optim.Muon(model.parameters(), momentums=0.9)  # call-arg, reportCallIssue
    optim.Muon(model.parameters(), split=0.5)  # arg-type, reportArgumentType
    optim.Muon(model.parameters(), ns_coefficients=(1.5, -0.5))  # arg-type, reportArgumentType
    optim.Muon(model.parameters()).step(1)  # arg-type, reportArgumentType
    optim.param_groups(model.parameters())  # arg-type, reportArgumentType
    optim.param_groups(model, muons={})  # call-arg, reportCallIssue
    optim.scale_by_msign(learning_rate=0.1)  # call-arg, reportCallIssue
    optim.scale_by_msign(tol="1e-3")  # arg-type, reportArgumentType
    optim.MatrixAxes(input=0)  # call-arg, reportCallIssue
