"""Trees of matrices: the results of single calls, in one call for each shape."""

import numpy as np
import pytest

import matsign
from matrices import gaussian
from matsign import each, msign, polar, solve_sylvester
from matsign.core.operations import BoundOperation


def collection(on, rng):
    make = lambda *shape: on.array(gaussian(rng, *shape))  # noqa: E731
    return {
        "embed": make(9, 4),
        "blocks": [(make(4, 4), make(4, 9), None), [make(4, 4), make(9, 4)]],
        "experts": make(2, 4, 9),
        "more": make(2, 9, 4),
        "one": make(1, 1),
    }


def leaves(tree):
    if isinstance(tree, dict):
        return [x for k in tree for x in leaves(tree[k])]
    if isinstance(tree, (list, tuple)):
        return [x for part in tree for x in leaves(part)]
    return [] if tree is None else [tree]


def test_equal_to_one_by_one_in_few_calls(on, rng, monkeypatch):
    tree = collection(on, rng)
    calls, run = [], BoundOperation.evaluate
    monkeypatch.setattr(
        BoundOperation, "evaluate", lambda self, backend, *xs: calls.append(xs[0].shape) or run(self, backend, *xs)
    )
    found = each(msign)(tree)
    assert len(calls) == 4  # 9 × 4 and 4 × 9, 4 × 4, stacks of both, 1 × 1
    assert type(found["blocks"][0]) is tuple
    assert found["blocks"][0][2] is None
    for x, y in zip(leaves(tree), leaves(found), strict=True):
        np.testing.assert_allclose(np.asarray(y), np.asarray(msign(x)), atol=1e-14)


def test_several_results(rng):
    trees = [gaussian(rng, 5, 3), gaussian(rng, 3, 5), gaussian(rng, 5, 3)]
    for x, (u, h) in zip(trees, each(polar)(trees), strict=True):
        np.testing.assert_allclose(u @ h, x, atol=1e-14)
    assert isinstance(each(polar)(trees)[0], matsign.Polar)


def test_gradients(rng):
    torch = pytest.importorskip("torch")
    tree = [torch.from_numpy(gaussian(rng, n, m)).requires_grad_() for n, m in ((4, 3), (3, 4), (4, 3))]
    sum((x**3).sum() for x in each(msign)(tree)).backward()
    for x in tree:
        y = x.detach().clone().requires_grad_()
        (msign(y) ** 3).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)


def test_mixed_dtypes_and_empty_collections(rng):
    a = gaussian(rng, 3, 3)
    found = each(msign)([a, a.astype("float32"), a + 0j])
    assert [x.dtype for x in found] == ["float64", "float32", "complex128"]
    assert each(msign)([]) == []
    assert each(msign)({}) == {}
    assert each(msign)(None) is None


def test_what_is_no_matrix_is_an_error(rng):
    for tree in ([1.0], ["x"], [np.ones(3)], {"a": [np.eye(2), 3]}):
        with pytest.raises(TypeError, match="each needs matrices"):
            each(msign)(tree)
    for f in (solve_sylvester, np.linalg.inv):
        with pytest.raises(TypeError, match="of one array"):
            each(f)
