"""A few seconds of what ``make fuzz`` does for an hour: every function on hostile input, against every promise."""

import mpmath
import numpy as np
import pytest

import matsign
from fuzz import cases, hostile, promises, references

SEEDS = (11, 14, 22)


def test_every_public_function_is_fuzzed():
    functions = {name for name in matsign.__all__ if hasattr(getattr(matsign, name), "spec")}
    assert functions == set(cases.BY_NAME)


@pytest.mark.parametrize("subject", cases.SUBJECTS, ids=lambda s: s.name)
def test_every_method_and_option_is_drawn(subject):
    """Every name that an option may have, and every option itself, comes up in the cases of a thousand seeds."""
    drawn = [subject.options(np.random.default_rng(seed)) for seed in range(1000)]
    spec = subject.f.spec
    for name in spec.parameters.options:
        assert any(name in options for options in drawn), name
    for name, allowed in spec.parameters.choices.items():
        assert {o[name] for o in drawn if name in o} | {spec.parameters.options[name]} >= set(allowed), name


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("subject", cases.SUBJECTS, ids=lambda s: s.name)
def test_promises(subject, seed):
    case, rng = cases.draw(seed, subject)
    libraries = ["torch"] if promises.HAVE["torch"] and seed % 2 else []
    broken = [b for b in promises.check(case, rng, libraries).broken if b.promise not in promises.SOFT]
    assert not broken, f"{broken}\n{case}"


def test_a_case_follows_from_its_seed():
    for seed in range(20):
        assert str(cases.draw(seed)[0]) == str(cases.draw(seed)[0])


def test_a_case_can_be_pasted():
    for seed in range(60):
        case, _ = cases.draw(seed)
        text = str(case).removeprefix(f"matsign.{case.subject.name}")
        copy = eval("lambda *arrays, **options: (arrays, options)", {})
        arrays, options = eval(f"copy{text}", {"np": np, "copy": copy})
        by_keyword = getattr(matsign, case.subject.name).spec.parameters.keyword_arrays
        arrays += tuple(options.pop(name, None) for name in by_keyword[: len(case.arrays) - len(arrays)])
        assert options == case.options
        for x, y in zip(arrays, case.arrays, strict=True):
            assert (x is None and y is None) or (x.dtype == y.dtype and np.array_equal(x, y, equal_nan=True))


@pytest.mark.slow
@pytest.mark.parametrize("subject", [s for s in cases.SUBJECTS if s.reference], ids=lambda s: s.name)
def test_references_know_the_answer(subject):
    """On mild problems the reference answers, and the library agrees to what the condition allows."""
    known = 0
    for seed in range(100, 115):
        case, _ = cases.draw(seed, subject, sizes=(2,), dtype="float64")
        exact = promises.reference_of(case)
        if exact is None or isinstance(exact, references.NoAnswerError):
            continue
        known += 1
    assert known >= 2


def _certified(real, faulty, arrays, options):
    """The value of a faulty function beside the certificate of the real one."""
    return faulty(*arrays, **options), matsign.certify(real)(*arrays, **options)[1]


class TestABrokenPromiseIsSeen:
    """What the checker is for: each fault, put into a function that has none, is found."""

    @pytest.fixture
    def broken(self, monkeypatch):
        def check(fault, **options):
            real = matsign.mcsgn

            def faulty(m, **kwargs):
                return fault(real, m, **kwargs)

            faulty.spec = real.spec
            subject = cases.BY_NAME["mcsgn"]._replace(name="faulty")
            monkeypatch.setattr(matsign, "faulty", faulty, raising=False)
            monkeypatch.setattr(promises, "with_certificate", lambda f: lambda *a, **o: _certified(real, f, a, o))
            case = cases.Case(subject, (np.array([[4.0, 3.0], [1.0, -2.0]]),), {})
            found = promises.check(case, np.random.default_rng(0), [])
            return {b.promise for b in found.broken}

        return check

    def test_none(self, broken):
        assert broken(lambda f, m, **o: f(m, **o)) == set()

    def test_changed_input(self, broken):
        def fault(f, m, **options):
            value = f(m, **options)
            m *= 2
            return value

        assert "changes its input" in broken(fault)

    def test_warning(self, broken):
        assert "warning" in broken(lambda f, m, **o: f(m + 0 * np.log(np.zeros(())).clip(-1), **o))

    def test_raw_exception(self, broken):
        def fault(f, m, **options):
            raise np.linalg.LinAlgError("SVD did not converge")

        assert "raw exception" in broken(fault)

    def test_wrong_answer(self, broken):
        found = broken(lambda f, m, **o: f(m, **o) * (1 + 1e-10))
        assert "forward error too small" in found

    def test_dependence_on_other_members(self, broken):
        found = broken(lambda f, m, **o: f(m, **o) + 1e-15 * (m.ndim > 2))
        assert "a member differs from its single call" in found

    def test_scale(self, broken):
        assert "scaling by a power of two changes bits" in broken(lambda f, m, **o: f(m, **o) + 1e-15 * abs(m).max())

    def test_hang(self, broken, monkeypatch):
        def fault(f, m, **options):
            while True:
                pass

        monkeypatch.setattr(promises, "SECONDS", 0.2)
        assert broken(fault) == {"hangs"}


def test_hostile_matrices_are_of_every_size():
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 5):
        for make in hostile.SQUARE:
            assert make(rng, n).shape == (n, n)
        for m in (0, 1, 3):
            for make in hostile.RECTANGULAR:
                assert make(rng, n, m).shape == (n, m)


def test_digits_of_the_references():
    with mpmath.workdps(references.DIGITS):
        s = references.sign(np.array([[1.0, 1e3], [0.0, -1.0]]))
        assert abs(s[0, 1] - 1000) < 1e-50
        s = references.sign(np.array([[1.0, 5.0], [0.0, 0.0]]))  # singular: it is its own sign
        assert abs(s[0, 1] - 5) < 1e-50


def test_a_reference_that_gives_up_knows_nothing():
    def gives_up(*arrays, **options):
        raise RuntimeError("qr: failed to converge after 321 steps")

    case, _ = cases.draw(100, cases.BY_NAME["mcsgn"], sizes=(2,))
    assert promises.reference_of(case._replace(subject=case.subject._replace(reference=gives_up))) is None
