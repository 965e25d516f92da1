"""Tests of every function: accuracy on every library, dtype and method; batches; scales; certificates."""

import numpy as np
import pytest

import matsign
import truth
from matrices import DTYPES
from matsign import backends, certify
from matsign.core.options import known_options
from problems import BY_NAME, PROBLEMS, TOLERANCE, arrays_by_position, as_tuple, worst

every_function = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
every_scaling = pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.scales], ids=lambda p: p.name)
every_method = pytest.mark.parametrize(
    ("problem", "method"),
    [(p, m) for p in PROBLEMS for m in p.methods],
    ids=lambda x: x if isinstance(x, str) else x.name,
)


@every_function
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_reference_on_every_library(problem, dtype, everywhere, rng):
    if everywhere.jit and (dtype != "complex128" or problem.name.endswith(("_are", "extremal_solutions"))):
        pytest.skip("compiling takes long: float64 has its turn with the certificates below")
    if not problem.takes(dtype):
        pytest.skip("complex matrices are refused")
    arguments = problem.stacked(rng, 2, dtype)
    value = everywhere(problem.f, *arguments)
    for x, kind in zip(as_tuple(value), problem.f.spec.operation.kinds or ["same"] * 9, strict=False):
        assert x.dtype == (np.zeros(0, dtype).real.dtype if kind == "real" else dtype)
    wide = [x.astype(np.result_type(dtype, "float64")) for x in arguments]
    assert worst(value, problem.several(*wide)) < TOLERANCE[dtype]


@every_method
def test_every_method_equals_the_exact_answer(problem, method, on, rng):
    arguments = problem.make(rng, "float64")
    value = as_tuple(on(problem.f, *arguments, method=method))
    for x, y in zip(value, as_tuple(problem.truth(*arguments)), strict=True):
        assert truth.error(x, y) < 1e-13


@every_method
def test_every_method_in_complex_single_precision(problem, method, rng):
    arguments = problem.make(rng, "complex64")
    value = as_tuple(problem.f(*arguments, method=method))
    for x, y in zip(value, as_tuple(problem.truth(*arguments)), strict=True):
        assert x.dtype == "complex64"
        assert truth.error(x, y) < 1e-5


@pytest.mark.parametrize("name", ["nearest_rotation", "procrustes", "coupled_root", "geometric_mean"])
def test_functions_with_one_method_equal_the_exact_answer(name, on, rng):
    problem = BY_NAME[name]
    arguments = problem.make(rng, "float64")
    for x, y in zip(as_tuple(on(problem.f, *arguments)), as_tuple(problem.truth(*arguments)), strict=True):
        assert truth.error(x, y) < 1e-13


@every_function
def test_single_matrix_has_no_batch_axis(problem, on, rng):
    arguments = problem.make(rng, "float64")
    assert worst(on(problem.f, *arguments), problem.reference(*arguments)) < 1e-12


@every_function
def test_leading_axes_broadcast(problem, rng):
    arguments = problem.stacked(rng, 3)
    single = problem.make(rng, "float64")
    # One argument of shape (3, 1, ·, ·), one of (2, ·, ·), the rest single.
    mixed = [arguments[0][:, None]]
    if len(arguments) > 1:
        mixed.append(np.stack([arguments[1][0], single[1]]))
    mixed += single[2:]
    value = problem.f(*mixed)
    assert as_tuple(value)[0].shape[:-2] == ((3, 1) if len(arguments) == 1 else (3, 2))
    assert worst(value, problem.several(*mixed)) < 1e-12


@every_function
def test_members_do_not_depend_on_each_other(problem, on, rng):
    arguments = problem.stacked(rng, 4)
    alone = [as_tuple(on(problem.f, *(x[k : k + 1] for x in arguments))) for k in range(4)]
    for x, parts in zip(as_tuple(on(problem.f, *arguments)), zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(x, np.concatenate(parts), rtol=0, atol=1e-13 * np.abs(x).max())


@every_function
def test_a_bad_member_leaves_the_others_right(problem, on, rng):
    good = problem.stacked(rng, 3)
    reference = problem.several(*good)
    for poison in (np.nan, np.inf, 1e300, 1e-300, 0.0):
        arguments = [x.copy() for x in good]
        for x in arguments:
            x[1] = x[1] * poison if 0 < poison < np.inf else poison
        value = as_tuple(on(problem.f, *arguments, errors="nan"))
        for x, y in zip(value, reference, strict=True):
            assert worst(x[[0, 2]], y[[0, 2]]) < 1e-12, poison
            assert poison == poison or np.isnan(x[1]).all()


@every_function
def test_not_finite_is_an_error_that_names_the_members(problem, on, rng):
    arguments = problem.stacked(rng, 3)
    for poison in (np.nan, np.inf, -np.inf):
        arguments[-1][1, 0, 0] = poison
        with pytest.raises(matsign.SpectrumError, match=f"{problem.name}: batch members 1: .*NaN or inf") as error:
            on(problem.f, *arguments)
        assert error.value.members == [(1,)]
        assert np.isfinite(np.asarray(as_tuple(error.value.value)[0])[[0, 2]]).all()


@every_scaling
@pytest.mark.parametrize("s", [1e100, 1e-100])
def test_scaling_the_input_scales_the_answer(problem, s, on, rng):
    arguments = problem.make(rng, "float64")
    before, after = problem.scales(s)
    value = on(problem.f, *(f * x for f, x in zip(before, arguments, strict=True)))
    plain = on(problem.f, *arguments)
    for x, y, f in zip(as_tuple(value), as_tuple(plain), after, strict=True):
        assert worst(x / f, y) < 1e-12


@every_scaling
def test_scaling_by_a_power_of_two_scales_every_bit(problem, rng):
    arguments = problem.make(rng, "float64")
    before, after = problem.scales(2.0**96)  # whose square, cube and fourth roots are powers of two
    value = problem.f(*(f * x for f, x in zip(before, arguments, strict=True)))
    for x, y, f in zip(as_tuple(value), as_tuple(problem.f(*arguments)), after, strict=True):
        np.testing.assert_array_equal(x, f * y)


@every_scaling
@pytest.mark.parametrize("s", [1e30, 1e-30])
def test_scaling_in_single_precision(problem, s, eager, rng):
    arguments = problem.make(rng, "float32")
    before, after = problem.scales(s)
    value = eager(problem.f, *(np.float32(f) * x for f, x in zip(before, arguments, strict=True)))
    for x, y, f in zip(as_tuple(value), as_tuple(problem.reference(*arguments)), after, strict=True):
        assert worst(x.astype("float64") / f, y) < 1e-4


@every_function
def test_certificates_and_failed_members(problem, everywhere, rng):
    """One member is NaN: it is NaN in the answer and the certificate and has not converged; the others are right."""
    arguments = problem.stacked(rng, 3)
    reference = problem.several(*arguments)
    arguments[0][1, 0, 0] = np.nan
    value, certificate = everywhere(certify(problem.f), *arguments, errors="nan")
    for x, y in zip(as_tuple(value), reference, strict=True):
        assert np.isnan(x[1]).all()
        assert worst(x[[0, 2]], y[[0, 2]]) < 1e-12
    assert all(x.shape == (3,) for x in (*certificate[:-1], *certificate.measures.values()))
    assert certificate.converged.tolist() == [True, False, True]
    for x, limit in ((certificate.backward_error, 1e-14), (certificate.forward_error, 1e-12)):
        assert np.isnan(x).tolist() == [False, True, False]
        assert (x[[0, 2]] < limit).all()


@every_function
def test_certificate_of_one_matrix_is_plain_numbers(problem, on, rng):
    _, certificate = certify(problem.f)(*(on.array(x) for x in problem.make(rng, "float64")))
    assert [type(x) for x in certificate[:-1]] == [float, float, int, bool, float, bool]
    assert all(type(x) is float for x in certificate.measures.values())


@every_function
@pytest.mark.parametrize("size", [1e-8, 1e-4])
def test_residual_sees_a_wrong_answer(problem, size, rng):
    """The estimate is the norm of one correction step: for a value with the error `size` it is about `size`."""
    arguments = problem.stacked(rng, 1)
    value = as_tuple(problem.f(*arguments))
    wrong = as_tuple(problem.f(*_perturbed(problem, size, rng, arguments)))
    for k, (x, y) in enumerate(zip(value, wrong, strict=True)):
        mixed = tuple(y if i == k else v for i, v in enumerate(value))
        true = worst(y, x)
        estimate = _estimate(problem, mixed, arguments)[k]
        assert true / 30 < estimate < 30 * true


def _perturbed(problem, size, rng, arguments):
    """Every entry times a factor near 1; Hermitian matrices stay Hermitian."""
    spec = problem.f.spec
    for name, x in zip(arrays_by_position(problem.f), arguments, strict=True):
        noise = size * rng.standard_normal(x.shape)
        yield x * (1 + (noise + noise.mT if name in spec.parameters.hermitian else noise))


def _estimate(problem, value, arguments):
    spec = problem.f.spec
    with np.errstate(all="ignore"):
        residual = spec.residual(
            backends.load("numpy"), value, *arguments, **known_options(spec.residual, spec.parameters.options)
        )
    return [np.linalg.norm(d) / np.linalg.norm(x) for d, x in zip(residual.correction, value, strict=True)]


MIXED = np.array([[3.0, 1, 2], [1, 4, 1], [0.5, 1, 5]])
GRADED = [np.diag([1e12, 1, 1e-13]), np.diag([1e13, 1, 1e-12])]


@pytest.mark.parametrize("units", GRADED)
@pytest.mark.parametrize("f", [matsign.sqrtm, matsign.invsqrtm, matsign.mcsgn, matsign.matrix_abs])
def test_units_beyond_the_range_of_single_precision_in_functions(f, units, eager):
    """Entries of 1e25 and 1e-25 in one matrix: a scaling by the largest entry alone would make the small one zero."""
    m = units @ MIXED @ np.linalg.inv(units)
    m = (m if f in (matsign.sqrtm, matsign.invsqrtm) else m - 4.5 * np.eye(3)).astype("float32")
    np.testing.assert_allclose(eager(f, m), f(m.astype(float)), rtol=1e-4)


@pytest.mark.parametrize("units", GRADED)
def test_units_beyond_the_range_of_single_precision_in_equations(units, eager):
    back = np.linalg.inv(units)
    a, b, c = -units @ MIXED @ back, units @ MIXED[:, :1], MIXED[:1] @ back
    for f, *arrays in (
        (matsign.solve_continuous_lyapunov, a, -units @ MIXED @ MIXED.T @ units),
        (matsign.solve_discrete_lyapunov, a / 10, units @ MIXED @ MIXED.T @ units),
        (matsign.hankel_singular_values, a, b, c),
        (matsign.solve_sylvester, a, a, b @ c),
    ):
        arrays = [x.astype("float32") for x in arrays]
        np.testing.assert_allclose(eager(f, *arrays), f(*(x.astype(float) for x in arrays)), rtol=1e-3)
