"""Unusual and invalid input: the right answer, or an error that names the argument."""

import inspect

import numpy as np
import pytest

import matsign
from matrices import gaussian
from problems import BY_NAME, PROBLEMS, arrays_by_position, as_tuple, worst

every_function = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)

# Each function with the name and position of each array argument.
ARGUMENTS = [(p, k, name) for p in PROBLEMS for k, name in enumerate(arrays_by_position(p.f))]
every_argument = pytest.mark.parametrize(
    ("problem", "place", "name"), ARGUMENTS, ids=lambda x: getattr(x, "name", str(x))
)


def replaced(problem, place, value, rng):
    arguments = list(problem.make(rng, "float64"))
    arguments[place] = value(arguments[place]) if callable(value) else value
    return arguments


def assert_raises(problem, arguments, text, *errors):
    with pytest.raises(errors or (TypeError, ValueError), match=rf"^{problem.name}: {text}"):
        problem.f(*arguments)


def stands_for(problem, place, value, matrix):
    """Whether a number or a vector stands for a matrix: the diagonal of a weight, a column or a row."""
    role = problem.f.spec.parameters.vectors.get(arrays_by_position(problem.f)[place])
    size = matrix.shape[1] if role == "row" else len(matrix)
    return role is not None and (len(value) == size if value.ndim else role == "diagonal")


@every_argument
def test_too_few_dimensions(problem, place, name, rng):
    for value in (1.0, np.array(2.0), np.ones(3), np.ones(0), 3, True, [], [1.0, 2.0]):
        if np.ndim(value) > 0 or len(arrays_by_position(problem.f)) > 1:  # a number alone is a 1 × 1 matrix
            arguments = replaced(problem, place, value, rng)
            if stands_for(problem, place, np.asarray(value), problem.make(rng, "float64")[place]):
                continue
            assert_raises(problem, arguments, rf"{name} has shape \(.*\), expected \(\.\.\., ")


@every_argument
def test_wrong_sizes(problem, place, name, rng):
    if problem.name in ("msign", "polar", "mclip", "soft_threshold"):
        pytest.skip("takes any matrix")
    free = (problem.name.endswith(("_factor", "gramian")) and name == "b") or (problem.name, name) == (
        "riccati_factor",
        "c",
    )
    if free or name == "G":
        pytest.skip("takes any number of columns or rows")
    for change in (lambda x: x[:-1], lambda x: x[:, :-1], lambda x: np.ones((5, 4))):
        with pytest.raises(ValueError, match=rf"^{problem.name}: \w+ has shape \(.*\), expected \(\.\.\., "):
            problem.f(*replaced(problem, place, change, rng))


def test_wrong_sizes_name_the_argument_and_where_the_size_comes_from():
    eye = np.eye
    for arguments, text in (
        (
            (eye(3), eye(2), np.ones((3, 3))),
            r"q has shape \(3, 3\), expected \(\.\.\., n, m\) with n = 3 from a and m = 2 from b",
        ),
        ((np.ones((3, 2)), eye(2), np.ones((3, 2))), r"a has shape \(3, 2\), expected \(\.\.\., n, n\)"),
        ((eye(3), np.ones((2, 3)), np.ones((3, 2))), r"b has shape \(2, 3\), expected \(\.\.\., m, m\)"),
    ):
        with pytest.raises(ValueError, match=f"^solve_sylvester: {text}"):
            matsign.solve_sylvester(*arguments)
    with pytest.raises(
        ValueError, match=r"^solve_riccati: d has shape \(3, 2\), expected \(\.\.\., m, n\) with m = 2 from b and n = 3"
    ):
        matsign.solve_riccati(eye(3), eye(2), np.ones((3, 2)), np.ones((3, 2)))


@every_argument
def test_not_numbers(problem, place, name, rng):
    for value in ("text", None, {"a": 1}, object(), [[1.0, "x"], [2.0, 3.0]], [[1.0], [1.0, 2.0]]):
        if value is not None or name not in problem.f.spec.parameters.optional:
            assert_raises(problem, replaced(problem, place, value, rng), f"{name} ")


@every_argument
def test_dtypes_that_are_refused(problem, place, name, rng):
    for dtype in ("object", "longdouble", "clongdouble", "str", "datetime64[s]"):
        arguments = replaced(problem, place, lambda x, dtype=dtype: np.ones(x.shape, "int64").astype(dtype), rng)
        assert_raises(problem, arguments, f".*{name}", TypeError)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if not p.f.spec.parameters.halves], ids=lambda p: p.name)
def test_float16_is_refused(problem, rng):
    """In all arrays: with float64 it is promoted."""
    assert_raises(problem, [x.astype("float16") for x in problem.make(rng, "float64")], ".*float16", TypeError)


@every_function
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "bool"])
def test_integers_become_floats(problem, dtype, eager):
    check_that_integers_become_floats(problem, dtype, eager)


@pytest.mark.parametrize(
    ("problem", "dtype"),
    [(p, ("int8", "int32", "int64", "uint8", "bool")[k % 5]) for k, p in enumerate(PROBLEMS)],
    ids=lambda x: getattr(x, "name", x),
)
def test_integers_become_floats_in_jax(problem, dtype, in_jax):
    check_that_integers_become_floats(problem, dtype, in_jax)


def check_that_integers_become_floats(problem, dtype, on):
    """As in SciPy: the default float of the library."""
    integers = len(arrays_by_position(problem.f))
    matrix = np.eye(3, dtype=dtype)
    arguments = [matrix] * integers
    if problem.name in ("solve_riccati", "lyapunov_factor", "gramian"):
        if dtype in ("uint8", "bool"):
            pytest.skip("a must be negative stable here")
        arguments[0] = -matrix
    if "discrete" in problem.name and not problem.name.endswith(("_are", "extremal_solutions")):
        arguments[0] = 0 * matrix
    if problem.name == "solve_sylvester_pair":
        arguments[4] = 0 * matrix
    if problem.name.endswith(("_are", "extremal_solutions")):
        arguments = [matrix] * 5 + [0 * matrix]
    value = as_tuple(on(problem.f, *arguments))
    expected = as_tuple(problem.f(*(x.astype("float64") for x in arguments)))
    for x, y in zip(value, expected, strict=True):
        assert x.dtype == ("float32" if on.name == "torch" else "float64")
        np.testing.assert_allclose(x, y, rtol=1e-6)


@every_function
def test_nested_lists(problem, rng):
    arguments = problem.make(rng, "float64")
    value = problem.f(*(x.tolist() for x in arguments))
    for x, y in zip(as_tuple(value), as_tuple(problem.f(*arguments)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if len(arrays_by_position(p.f)) > 1], ids=lambda p: p.name)
def test_lists_beside_arrays(problem, on, rng):
    """A list takes the library of the arrays beside it."""
    arguments = problem.make(rng, "float64")
    first = on.array(arguments[0])
    value = as_tuple(problem.f(first, *(x.tolist() for x in arguments[1:])))
    assert type(value[0]) is type(first)
    assert worst(tuple(map(np.asarray, value)), problem.reference(*arguments)) < 1e-5  # lists may be float32 in torch


@pytest.mark.compiles
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if len(arrays_by_position(p.f)) > 1], ids=lambda p: p.name)
def test_mixed_libraries(problem, rng):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    a, b, *rest = problem.make(rng, "float64")
    first, second = arrays_by_position(problem.f)[:2]
    for x, y, text in (
        (a, torch.from_numpy(b), f"{first} is numpy, {second} is torch"),
        (torch.from_numpy(a), jax.numpy.asarray(b), f"{first} is torch, {second} is jax"),
    ):
        with pytest.raises(TypeError, match=f"^{problem.name}: all arrays must come from one library; {text}"):
            problem.f(x, y, *rest)


def test_mixed_devices():
    torch = pytest.importorskip("torch")
    a, meta = torch.eye(2), torch.eye(2, device="meta")
    with pytest.raises(
        ValueError, match=r"^solve_sylvester: all arrays must be on the same devices; a is on cpu, b is on meta"
    ):
        matsign.solve_sylvester(a, meta, a)


def test_torch_tensors_that_are_no_plain_matrices():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^mcsgn: M .*layout"):
        matsign.mcsgn(torch.eye(2).to_sparse())


def test_masked_arrays():
    with pytest.raises(TypeError, match=r"^mcsgn: M .*masked"):
        matsign.mcsgn(np.ma.masked_array(np.eye(2), mask=[[0, 1], [0, 0]]))


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if len(arrays_by_position(p.f)) > 1], ids=lambda p: p.name)
def test_leading_axes_that_do_not_broadcast(problem, rng):
    a, b, *rest = problem.make(rng, "float64")
    first, second = arrays_by_position(problem.f)[:2]
    with pytest.raises(ValueError, match=f"^{problem.name}: the leading axes do not broadcast: .*{first} .*{second} "):
        problem.f(np.stack([a] * 2), np.stack([b] * 3), *rest)


@every_function
@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
def test_empty_batches(problem, batch, eager, rng):
    check_empty_batches(problem, batch, eager, rng)


@every_function
@pytest.mark.parametrize(("batch", "jit"), [((0, 3), False), ((2, 0), True)])
def test_empty_batches_in_jax(problem, batch, jit, in_jax, rng):
    check_empty_batches(problem, batch, in_jax._replace(jit=jit), rng)


def check_empty_batches(problem, batch, on, rng):
    arguments = [np.zeros((*batch, *x.shape)) for x in problem.make(rng, "float64")]
    reference = as_tuple(problem.reference(*problem.make(rng, "float64")))
    for x, y in zip(as_tuple(on(problem.f, *arguments)), reference, strict=True):
        # The number of columns of a factor depends on values.
        assert x.shape == (*batch, *y.shape) or (problem.name.endswith("factor") and x.shape == (*batch, len(y), 0))
    _, certificate = on(matsign.certify(problem.f), *arguments)
    assert all(x.shape == batch for x in certificate[:-1])


@every_function
@pytest.mark.parametrize("batch", [(), (2,)])
def test_empty_matrices(problem, batch, everywhere, rng):
    arguments = [np.zeros((*batch, 0, 0)) for _ in arrays_by_position(problem.f)]
    numbers = [not letters for letters in problem.f.spec.operation.results]
    for x, is_number in zip(as_tuple(everywhere(problem.f, *arguments)), numbers, strict=True):
        assert x.shape == (batch if is_number else (*batch, 0, 0))
    _, certificate = everywhere(matsign.certify(problem.f), *arguments)
    assert certificate.converged.all()


def test_empty_on_one_side(on):
    assert on(matsign.msign, np.zeros((0, 3))).shape == (0, 3)
    assert on(matsign.polar, np.zeros((3, 0))).h.shape == (0, 0)
    # With no rows at all, H = 0 of the full size.
    np.testing.assert_array_equal(on(matsign.polar, np.zeros((0, 3))).h, np.zeros((3, 3)))
    assert on(matsign.solve_sylvester, np.eye(2), np.zeros((0, 0)), np.zeros((2, 0))).shape == (2, 0)


@every_function
def test_one_by_one(problem, on):
    """Numbers such as 4 as 1 × 1 matrices: every function is defined for scalars."""
    four = np.array([[4.0]])
    arguments = {
        "solve_sylvester": (four, four, four),
        "solve_sylvester_pair": (four, -four, four, four, four, 2 * four),
        "solve_riccati": (-four, four, four, np.array([[0.5]])),
        "coupled_root": (four, np.array([[9.0]])),
        "geometric_mean": (four, np.array([[9.0]])),
        "lyapunov_factor": (-four, four),
        "discrete_lyapunov_factor": (four / 8, four),
        "riccati_factor": (four, four, four),
        "gramian": (-four, four),
        "discrete_gramian": (four / 8, four),
        "extremal_solutions": (four, four, four, four),
        "discrete_extremal_solutions": (four, four, four, four),
        "solve_continuous_are": (four, four, four, four),
        "solve_discrete_are": (four, four, four, four),
    }.get(problem.name, (four,) * len(arrays_by_position(problem.f)))
    expected = {
        "msign": (1,),
        "nearest_rotation": (1,),
        "procrustes": (1, 16),
        "polar": (1, 4),
        "mcsgn": (1,),
        "spectral_projector": (0.25,),
        "matrix_abs": (4,),
        "mclip": (2,),
        "soft_threshold": (3.5,),
        "psd_project": (4,),
        "sqrtm": (2,),
        "invsqrtm": (0.5,),
        "sqrtm_pair": (2, 0.5),
        "rootm": (4 ** (1 / 3),),
        "invrootm": (4**-0.25,),
        "invroot_product": (4**0.75,),
        "fractional_matrix_power": (4**-0.75,),
        "logm": (np.log(4),),
        "coupled_root": (2 / 3, 3 / 2),
        "geometric_mean": (6,),
        "solve_sylvester": (0.5,),
        "solve_riccati": (-8 + 72**0.5,),  # x²/2 + 8 x - 4 = 0
        "solve_continuous_lyapunov": (0.5,),
        "solve_discrete_lyapunov": (-4 / 15,),
        "solve_discrete_sylvester": (-4 / 15,),
        "solve_generalized_sylvester": (1 / 8,),
        "solve_sylvester_pair": (1.5, -0.5),  # 4 x + 4 y = 4, 4 x - 4 y = 8
        "lyapunov_factor": (2**0.5,),
        "discrete_lyapunov_factor": (8 / 3**0.5,),
        "riccati_factor": (((1 + 17**0.5) / 4) ** 0.5,),  # 8 x - 16 x² + 16 = 0
        "gramian": (2,),
        "discrete_gramian": (64 / 3,),
        "extremal_solutions": (1 + 2**0.5, 1 - 2**0.5),
        "discrete_extremal_solutions": ((31 + 1025**0.5) / 8, (31 - 1025**0.5) / 8),
        "solve_differential_riccati": (1 + 2**0.5 * np.tanh(3 * 2**0.5 + np.arctanh(3 / 2**0.5 + 0j)).real,),
        "solve_continuous_are": (1 + 2**0.5,),  # 8 x - 4 x² + 4 = 0
        "solve_discrete_are": ((31 + 1025**0.5) / 8,),  # x = 4 + 16 x / (1 + 4 x)
    }[problem.name]
    for x, y in zip(as_tuple(on(problem.f, *arguments)), expected, strict=True):
        np.testing.assert_allclose(np.abs(x) if "factor" in problem.name else x, [[y]], rtol=1e-14)


@every_function
def test_layouts_and_inputs_unchanged(problem, rng):
    """Read-only, Fortran, strided, transposed and reversed views give the same answer and keep every bit."""
    arguments = problem.make(rng, "float64")
    expected = as_tuple(problem.f(*arguments))

    def strided(x):
        out = np.full((2 * len(x), 3 * x.shape[1]), np.nan)
        out[::2, ::3] = x
        return out[::2, ::3]

    def readonly(x):
        x = x.copy()
        x.flags.writeable = False
        return x

    layouts = {
        "read-only": readonly,
        "Fortran": np.asfortranarray,
        "strided": strided,
        "transposed": lambda x: x.T.copy().T,
        "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        "big-endian": lambda x: x.astype(">f8"),
    }
    for name, layout in layouts.items():
        given = [layout(x) for x in arguments]
        before = [x.tobytes() for x in given]
        value = as_tuple(problem.f(*given))
        assert [x.tobytes() for x in given] == before, name
        for x, y in zip(value, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-14 * np.abs(y).max(), err_msg=name)


@pytest.mark.parametrize(
    ("problem", "options"),
    [(p, options) for p in PROBLEMS for options in ([{"method": m} for m in p.methods] or [{}])],
    ids=lambda x: getattr(x, "name", None) or x.get("method", "auto"),
)
def test_inputs_are_never_changed(problem, options, eager, rng):
    arguments = [eager.array(x) for x in problem.stacked(rng, 2)]
    before = [np.array(x).tobytes() for x in arguments]
    value = as_tuple(problem.f(*arguments, **options))
    assert [np.array(x).tobytes() for x in arguments] == before
    for x in value:  # and the answer is not a view of the input
        x[...] = 0
    assert [np.array(x).tobytes() for x in arguments] == before


def test_sixteen_bit_input_is_never_changed(rng):
    torch = pytest.importorskip("torch")
    m = torch.from_numpy(gaussian(rng, 4, 4)).to(torch.bfloat16)
    before = m.clone()
    u = matsign.msign(m, tol=0.1)
    u.zero_()
    assert torch.equal(m, before)


@every_function
def test_views_of_torch_tensors(problem, rng):
    torch = pytest.importorskip("torch")
    arguments = problem.make(rng, "complex128" if problem.takes("complex128") else "float64")
    expected = as_tuple(problem.f(*arguments))
    lazy = [torch.from_numpy(x.conj().T.copy()).mT.conj() for x in arguments]  # conj bit and transposed strides
    for x, y in zip(as_tuple(problem.f(*lazy)), expected, strict=True):
        np.testing.assert_allclose(x.resolve_conj().numpy(), y, atol=1e-12 * np.abs(y).max())


@every_function
@pytest.mark.parametrize(("option", "value"), [("method", "magic"), ("method", None), ("errors", "ignore")])
def test_unknown_values_of_options(problem, option, value, rng):
    if option == "method" and not problem.methods:
        pytest.skip("one method only")
    if value in problem.f.spec.parameters.choices.get(option, ()):
        pytest.skip("as in SciPy, None is a method here")
    with pytest.raises(ValueError, match=rf"^\w+: {option} must be .*{value!r}"):
        problem.f(*problem.make(rng, "float64"), **{option: value})


@every_function
def test_unknown_method_names_the_function(problem, rng):
    if not problem.methods:
        pytest.skip("one method only")
    with pytest.raises(ValueError, match=f"^{problem.name}: method must be one of"):
        problem.f(*problem.make(rng, "float64"), method="magic")


@every_function
def test_unknown_options_and_wrong_numbers_of_arguments(problem, rng):
    f, arguments = getattr(matsign, problem.name), problem.make(rng, "float64")
    places = [p for p in inspect.signature(f).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted = [p.name for p in places if p.default is p.empty]
    with pytest.raises(TypeError, match=rf"^{problem.name}\(\) .*'magic'"):
        f(*[np.eye(2)] * len(wanted), magic=1)
    with pytest.raises(TypeError, match=f"^{problem.name}: .*'magic'"):
        matsign.certify(f)(*[np.eye(2)] * len(wanted), magic=1)
    with pytest.raises(TypeError, match=rf"^{problem.name}\(\) missing .*'{wanted[-1]}'"):
        f(*[np.eye(2)] * (len(wanted) - 1))
    with pytest.raises(TypeError, match=rf"^{problem.name}\(\) takes .*{len(places)} positional"):
        f(*[np.eye(2)] * (len(places) + 1))
    names = arrays_by_position(problem.f)
    by_name = problem.f(**dict(zip(names, arguments, strict=True)))
    for x, y in zip(as_tuple(by_name), as_tuple(problem.f(*arguments)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", [p.name for p in PROBLEMS if "rtol" in p.f.spec.parameters.options])
@pytest.mark.parametrize("rtol", [-1e-3, 1.0, np.nan, "small"])
def test_bad_rtol(name, rtol, rng):
    with pytest.raises((ValueError, TypeError), match="rtol must"):
        BY_NAME[name].f(*BY_NAME[name].make(rng, "float64"), rtol=rtol)


@pytest.mark.parametrize("name", [p.name for p in PROBLEMS if "tol" in p.f.spec.parameters.options])
@pytest.mark.parametrize("tol", [-1e-3, 0.0, 1.0, np.nan])
def test_bad_tol(name, tol, rng):
    with pytest.raises(ValueError, match=r"\btol must"):
        BY_NAME[name].f(*BY_NAME[name].make(rng, "float64"), tol=tol)


def test_bad_half_plane():
    with pytest.raises(ValueError, match="half_plane must be"):
        matsign.spectral_projector(np.eye(2), half_plane="upper")


@pytest.mark.parametrize("f", [np.linalg.inv, lambda x: x, 3, None])
def test_certify_wants_a_function_of_the_library(f):
    with pytest.raises(TypeError, match="certify needs a function of matsign"):
        matsign.certify(f)


@every_function
@pytest.mark.parametrize("scale", [2.0**-1030, 2.0**-1062])
def test_denormals(problem, scale, rng):
    """All arguments denormal: results have the remaining digits, and no number is flushed to zero."""
    if not problem.scales:
        pytest.skip("has a scale of its own")
    arguments = [np.round(x * 64) / 64 for x in problem.make(rng, "float64")]
    scales, result = [scale] * len(arguments), None
    if (
        problem.name.endswith(("_are", "differential_riccati", "extremal_solutions", "projector"))
        or "discrete" in problem.name
        or "generalized" in problem.name
        or "factor" in problem.name
        or problem.name in ("gramian", "procrustes")
    ):
        scales, result = problem.scales(scale)  # or the answer would overflow
    small = [x * s for x, s in zip(arguments, scales, strict=True)]
    whole = [x / s for x, s in zip(small, scales, strict=True)]  # exact
    plain, root = np.ones(2), np.sqrt(scale)
    factors = {
        "polar": (1, scale),
        "matrix_abs": (scale,),
        "psd_project": (scale,),
        "geometric_mean": (scale,),
        "sqrtm": (root,),
        "invsqrtm": (1 / root,),
        "sqrtm_pair": (root, 1 / root),
        "rootm": (scale ** (1 / 3),),
        "invrootm": (scale**-0.25,),
        "invroot_product": (scale**0.75,),
        "fractional_matrix_power": (scale**-0.75,),
    }.get(problem.name, result or plain)
    for x, y, f in zip(as_tuple(problem.f(*small)), as_tuple(problem.f(*whole)), factors, strict=False):
        spacing = 2.0**-1074 / f if f < 1e-300 else 0  # a denormal result has few digits itself
        np.testing.assert_allclose(x / f, y, atol=1e-12 * np.abs(y).max() + spacing)


@pytest.mark.compiles
def test_jax_takes_denormals_for_zero_and_nothing_else(rng):
    jax = pytest.importorskip("jax")
    m = gaussian(rng, 3, 3)
    u = np.asarray(matsign.msign(jax.numpy.asarray(m * 1e-320)))
    assert not u.any() or np.abs(u.T @ u - np.eye(3)).max() < 1e-10


@every_function
def test_zero_in(problem, on, rng):
    """Sign, root and absolute value of zero are zero, its rotation is I. Functions with an inverse have an answer or an error."""
    arguments = [np.zeros_like(x) for x in problem.make(rng, "float64")]
    try:
        value = on(problem.f, *arguments)
    except matsign.SpectrumError:
        assert (
            problem.name in ("coupled_root", "geometric_mean", "logm", "spectral_projector")
            or problem.name.endswith("extremal_solutions")
            or problem.name.startswith("solve_")
            or "lyapunov" in problem.name
            or problem.name in ("gramian", "riccati_factor")
        )
        return
    if problem.name in ("nearest_rotation", "procrustes"):
        np.testing.assert_array_equal(as_tuple(value)[0], np.eye(3))
        return
    assert not any(x.any() for x in as_tuple(value))


# Arguments that are not dense arrays of numbers, and the text of the error.


def of_no_use():
    """A name, a function that makes the argument, and the text of the error."""
    import fractions

    import scipy.sparse

    yield (
        "scipy matrix",
        lambda: scipy.sparse.eye(4001),
        r"is a sparse matrix of 4001 × 4001 \(dia_matrix\).*toarray\(\)",
    )
    yield "Fractions", lambda: [[fractions.Fraction(1, 2)]], r"has dtype object \(the first entry is of type Fraction\)"
    yield "long integers", lambda: [[10**400]], r"has dtype object \(the first entry is of type int\).*dtype=float"
    yield "text", lambda: [["1.0"]], r"holds text \(dtype <U3\)"
    yield "None", lambda: None, "is None and no array of numbers"
    yield "a dictionary", dict, "is of type dict and no array of numbers"
    yield "masked", lambda: np.ma.masked_array(np.eye(2), np.eye(2)), r"masked entries; fill them .*filled"


@pytest.mark.parametrize(("make", "text"), [pytest.param(*x[1:], id=x[0]) for x in of_no_use()])
def test_what_is_no_dense_array_of_numbers(make, text):
    with pytest.raises(TypeError, match=f"^mcsgn: M .*{text}"):
        matsign.mcsgn(make())
    with pytest.raises(TypeError, match=f"^solve_sylvester: b .*{text}"):
        matsign.solve_sylvester(np.eye(2), make(), np.eye(2))


@pytest.mark.compiles
def test_sparse_arrays_of_torch_and_jax_and_lists_of_their_arrays():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    sparse = pytest.importorskip("jax.experimental.sparse")
    for m, text in (
        (torch.eye(2).to_sparse(), r"is sparse \(layout torch.sparse_coo\).*to_dense\(\)"),
        (sparse.BCOO.fromdense(jax.numpy.eye(2)), r"is sparse \(BCOO of jax\).*todense\(\)"),
        ([torch.eye(2)], "is a list of torch arrays; stack them"),
        ([[jax.numpy.ones(()), 1.0], [0.0, 1.0]], "is a list of jax arrays; stack them"),
    ):
        with pytest.raises(TypeError, match=f"^mcsgn: M {text}"):
            matsign.mcsgn(m)
    with pytest.raises(TypeError, match=r"^mcsgn: M is a list of jax arrays"):
        jax.jit(lambda x: matsign.mcsgn([[x, 0.0], [0.0, x]]))(1.0)


ODD = [
    np.array(["raise", "nan"]),
    np.ones(3),
    {"a": 1},
    {1},
    10**400,
    10**5000,
    -(10**400),
    np.nan,
    True,
    np.True_,
    np.str_("magic"),
    b"auto",
    1j,
    len,
    "x" * 10_000,
    slice(2),
    [],
    [0.1],
    -1,
    np.inf,
]


@pytest.mark.parametrize("value", ODD, ids=lambda x: type(x).__name__)
def test_odd_values_of_options(value):
    for option in ("errors", "method", "tol", "rtol", "precision"):
        with pytest.raises((ValueError, TypeError), match=f"^msign: {option} must be") as error:
            matsign.msign(np.eye(2), **{option: value})
        assert len(str(error.value)) < 300
    with pytest.raises((ValueError, TypeError), match=r"^solve_continuous_are: balanced must be"):
        matsign.solve_continuous_are(*[np.eye(2)] * 4, balanced=2 if value is True or value is np.True_ else value)


def test_options_from_arrays_of_any_library(on):
    m, u = np.diag([1.0, 1e-3]), np.diag([1.0, 0.0])
    for rtol in (np.float64(0.1), np.float32(0.1), np.longdouble(0.1), on.array(0.1), np.array(0.1)):
        np.testing.assert_array_equal(matsign.msign(m, rtol=rtol), u)
    assert matsign.msign(m, tol=on.array(1e-3), method=np.str_("svd"), errors=np.array("nan")).shape == (2, 2)


@pytest.mark.compiles
def test_traced_options():
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match=r"^msign: rtol must be known before the call"):
        jax.jit(lambda x: matsign.msign(np.eye(2), rtol=x))(0.1)
