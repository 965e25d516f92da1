"""Certificates of ill-conditioned answers: the forward error must be estimated although the residual is small."""

import numpy as np
import pytest

import matsign
import truth
from matrices import gaussian, graded, jordan, similar, stable, with_singular_values
from matsign import backends, certify


def estimated_and_true(f, exact, *arguments, **options):
    value, certificate = certify(f)(*arguments, **options)
    return certificate.forward_error, truth.error(value, exact(*arguments)), certificate


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("nonnormal", lambda rng: similar(rng, np.diag([1.0, -1, 2, -2]), 1e5)),
        ("graded", lambda rng: similar(rng, np.diag([1.0, -1e-6, 1e-3, -1e-8]), 10)),
        ("Jordan", lambda rng: similar(rng, np.kron(np.diag([1.0, -1]), jordan(1, 2)), 1e3)),
    ],
)
@pytest.mark.parametrize("method", ["newton", "schur", "auto"])
def test_forward_error_of_hard_signs(name, make, method, rng):
    estimate, true, certificate = estimated_and_true(matsign.mcsgn, truth.sign, make(rng), method=method)
    assert certificate.converged
    assert certificate.backward_error < 1e-9
    # Not below the true error, and not above the effect of rounding the entries of the matrix.
    m, size = make(np.random.default_rng(0)), 16 * np.finfo(float).eps
    moved = (m * (1 + size * rng.standard_normal(m.shape)) for _ in range(4))
    reach = max(truth.error(np.array(truth.sign(x), float), truth.sign(m)) for x in moved)
    assert estimate < 30 * max(true, reach, 1e-13)
    assert true < 1e-13 or estimate > true / 30


def test_forward_error_of_an_ill_conditioned_polynomial_sign(rng):
    """The polynomial iteration loses digits, and the certificate shows how many."""
    m = similar(rng, np.diag([1.0, -1, 2, -2]), 1e3)
    estimate, true, _ = estimated_and_true(matsign.mcsgn, truth.sign, m, method="polynomial")
    assert true > 1e-12
    assert true / 30 < estimate < 30 * true


@pytest.mark.parametrize("condition", [1e4, 1e8])
def test_forward_error_of_msign(condition, rng):
    m = with_singular_values(rng, 6, 4, graded(4, condition))
    estimate, true, _ = estimated_and_true(matsign.msign, truth.msign, m)
    assert estimate < 30 * max(true, 1e-13)
    assert true < 1e-13 or estimate > true / 30


def test_a_sign_of_another_matrix_is_seen():
    """S² = I to the last bit, but S has an error of 1e-8: the commutator and the correction show it."""
    backend = backends.load("numpy")
    m = np.array([[[1.0, 1.0], [0.0, -1.0]]])
    wrong = np.array([[[1.0, 1.0 + 1e-8], [0.0, -1.0]]])
    assert np.linalg.norm(wrong @ wrong - np.eye(2)) == 0
    residual = matsign.mcsgn.spec.residual(backend, (wrong,), m)
    assert 1e-9 < residual.backward[0] < 1e-7
    step = np.linalg.norm(residual.correction[0]) / np.linalg.norm(wrong)
    true = 1e-8 / np.linalg.norm(wrong)
    assert true / 2 < step < 2 * true


def test_a_polar_factor_of_another_matrix_is_seen(rng):
    """Orthogonal to 16 digits, but the answer for D M instead of M."""
    backend = backends.load("numpy")
    m = with_singular_values(rng, 5, 3, [3, 2, 1])
    wrong = matsign.msign(np.diag(1 + 1e-6 * np.arange(5)) @ m)
    true = np.linalg.norm(wrong - matsign.msign(m)) / 3**0.5
    residual = matsign.msign.spec.residual(backend, (wrong[None],), m[None])
    step = np.linalg.norm(residual.correction[0]) / np.linalg.norm(wrong)
    assert true / 5 < step < 5 * true
    assert residual.backward[0] > 1e-8


def test_certificate_of_a_singular_matrix(rng):
    for f, m in (
        (matsign.mcsgn, np.array([[1.0, 5], [0, 0]])),
        (matsign.mcsgn, jordan(0, 3)),
        (matsign.spectral_projector, np.diag([1.0, -2, 0])),
        (matsign.matrix_abs, np.diag([1.0, -2, 0])),
        (matsign.msign, np.diag([1.0, 2, 0])),
        (matsign.polar, np.diag([1.0, 2, 0])),
        (matsign.sqrtm, np.diag([4.0, 1, 0])),
        (matsign.invsqrtm, np.diag([4.0, 1, 0])),
        (matsign.sqrtm_pair, np.diag([4.0, 1, 0])),
        (matsign.mcsgn, np.zeros((2, 2))),
        (matsign.msign, np.zeros((3, 2))),
    ):
        _, certificate = certify(f)(m)
        assert certificate.converged
        assert certificate.backward_error < 1e-14
        assert certificate.forward_error < 1e-12


def test_batch_shaped_with_failures(on, rng):
    m = np.stack([[stable(rng, 3)] * 3] * 2)
    m[1, 0, 0, 0] = np.inf
    m[0, 2] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    _, certificate = certify(matsign.mcsgn)(on.array(m), errors="nan")
    assert np.asarray(certificate.converged).tolist() == [[True, True, False], [False, True, True]]
    for x in certificate[:2]:
        np.testing.assert_array_equal(np.isnan(np.asarray(x)), ~np.asarray(certificate.converged))
    assert type(certificate.backward_error) is type(on.array(m))


def test_certify_raises_like_the_function(rng):
    with pytest.raises(matsign.SpectrumError, match=r"^mcsgn: "):
        certify(matsign.mcsgn)(np.array([[0.0, 1], [-1, 0]]))


def test_iterations_are_counted(rng):
    m = similar(rng, np.diag([1.0, -1, 2, -2]))
    assert certify(matsign.mcsgn)(m, method="newton")[1].iterations > 3
    assert certify(matsign.mcsgn)(m, method="schur")[1].iterations == 0
    slow = similar(rng, np.diag([1.0, -1e-8, 2, -2]))
    fast, more = (certify(matsign.mcsgn)(x, method="newton")[1].iterations for x in (m, slow))
    assert more > fast


def test_certified_value_is_the_plain_value(rng):
    a, b, q = stable(rng, 3), stable(rng, 2), np.ones((3, 2))
    x, certificate = certify(matsign.solve_sylvester)(a, b, q, method="newton")
    np.testing.assert_array_equal(x, matsign.solve_sylvester(a, b, q, method="newton"))
    assert isinstance(certificate, matsign.Certificate)
    assert certify(matsign.solve_sylvester).__name__ == "solve_sylvester"


class TestMeasuresOfMsign:
    """The measures of msign, compared with the singular values."""

    @pytest.mark.parametrize("dtype", ["float32", "complex128"])
    @pytest.mark.parametrize("shape", [(9, 4), (3, 8), (2, 6, 6)])
    def test_of_few_steps(self, eager, shape, dtype, rng):
        self.check_few_steps(eager, shape, dtype, rng)

    @pytest.mark.parametrize(("shape", "dtype"), [((3, 8), "float32"), ((2, 6, 6), "complex128")])
    def test_of_few_steps_in_jax(self, in_jax, shape, dtype, rng):
        self.check_few_steps(in_jax._replace(jit=True), shape, dtype, rng)

    def check_few_steps(self, on, shape, dtype, rng):
        m = gaussian(rng, *shape, dtype=dtype)
        u, certificate = on(certify(matsign.msign), m, steps=3)
        measures = certificate.measures
        values = np.linalg.svd(u, compute_uv=False)
        close = {"rtol": 1e-3 if dtype == "float32" else 1e-9, "atol": 1e-5 if dtype == "float32" else 1e-12}
        np.testing.assert_allclose(measures["overshoot"], values.max(-1) - 1, **close)
        defect = np.sqrt((values**2 * (1 - values**2) ** 2).sum(-1) / (values**2).sum(-1))
        np.testing.assert_allclose(measures["orthogonality"], defect, **close)
        nuclear = np.linalg.svd(m, compute_uv=False).sum(-1)
        reached = (m.conj() * u).sum((-1, -2)).real / np.maximum(values.max(-1), 1)
        # The gap is an upper bound, and not much larger than the true gap.
        gap = np.asarray(measures["dual_gap"])
        assert (gap >= 1 - reached / nuclear - close["atol"]).all()
        assert (gap <= 1 - (1 - 0.3) * reached / nuclear).all()

    def test_of_the_whole(self, rng):
        _, certificate = certify(matsign.msign)(gaussian(rng, 40, 30))
        assert set(certificate.measures) == {"orthogonality", "dual_gap", "overshoot"}
        assert all(abs(x) < 1e-13 for x in certificate.measures.values())

    def test_orthogonal_but_of_another_matrix(self, rng):
        """A small defect of orthogonality does not imply a small error; a small gap does."""
        m, other = gaussian(rng, 30, 30), np.linalg.qr(gaussian(rng, 30, 30))[0]
        found = matsign.msign.spec.residual(backends.load("numpy"), (other[None],), m[None])
        measures = dict(zip(matsign.msign.spec.measures, found.measures, strict=True))
        assert measures["orthogonality"][0] < 1e-14
        assert measures["dual_gap"][0] > 0.5

    def test_rank_deficient_and_failed(self):
        m = np.zeros((3, 4, 3))
        m[0, 0, 0], m[1] = 2.0, np.nan
        _, certificate = certify(matsign.msign)(m, errors="nan")
        for x in certificate.measures.values():
            assert abs(x[0]) < 1e-14
            assert np.isnan(x[1])
        assert certificate.measures["dual_gap"][2] == 0

    def test_others_have_none(self):
        assert certify(matsign.polar)(np.eye(2))[1].measures == {}


@pytest.mark.parametrize("f", [getattr(matsign, n) for n in ("sqrtm", "matrix_abs", "mcsgn", "polar", "psd_project")])
def test_of_zero(f, on):
    """A correct answer of 0 has the error 0, not NaN."""
    _, certificate = certify(f)(on.array(np.zeros((2, 3, 3))))
    assert not np.asarray(certificate.forward_error).any()
    assert not np.asarray(certificate.backward_error).any()


@pytest.mark.parametrize("scale", [1e155, 1e-155, 1e200, 1e-200])
def test_forward_error_of_values_whose_squares_overflow_or_underflow(scale, on, rng):
    a, q = -stable(rng, 3), gaussian(rng, 3, 3)
    plain = on(certify(matsign.solve_sylvester), a, a, q)[1]
    scaled = on(certify(matsign.solve_sylvester), a, a, scale * q)[1]
    assert 1e-18 < scaled.forward_error < 30 * plain.forward_error


def test_error_of_values_near_and_below_the_smallest_number(eager):
    """A result that underflows to 0 has an unknown error, one with few digits left an error of one unit in the last place."""
    a = eager.array(1e-100 * (4 * np.eye(2) + np.eye(2, k=1)))
    nilpotent = eager.array(np.eye(2, k=1))
    power = certify(matsign.fractional_matrix_power)
    assert eager(power, a, 7)[1].forward_error == np.inf
    assert eager(power, a, 3.2)[1].forward_error > 1e-7
    assert eager(power, nilpotent, 2)[1].forward_error == 0
    assert eager(certify(matsign.solve_discrete_sylvester), a, a, a)[1].forward_error < 1e-15
    tiny = eager.array(1e-200 * np.eye(2))
    for f in (matsign.h2_norm, matsign.discrete_h2_norm, matsign.hankel_singular_values):
        stable_one = eager.array((0.5 if f is matsign.discrete_h2_norm else -1.0) * np.eye(2))
        assert eager(certify(f), stable_one, tiny, tiny)[1].forward_error == np.inf
        assert eager(certify(f), stable_one, tiny, 0 * tiny)[1].forward_error < 1e-300


def test_what_is_unknown_is_infinite():
    """A correction that is NaN gives an infinite error: every comparison with NaN would be false."""
    from matsign.core.certificates import _nan_to_infinity

    backend = backends.load("numpy")
    np.testing.assert_array_equal(_nan_to_infinity(backend, np.array([np.nan, 0.0, 1.0])), [np.inf, 0.0, 1.0])
