"""What the library promises of every call, and the check of each promise on one case.

A broken promise is a `Broken`: which one, and what was seen. Two kinds come apart: the promises proper, and `SOFT` ones that
ask for quality (an answer where a well-conditioned one exists, an error in proportion to the condition).
"""

import importlib.util
import pickle
import signal
import threading
import warnings
from contextlib import contextmanager
from typing import NamedTuple

import mpmath as mp
import numpy as np

import matsign
import truth
from fuzz import hostile, references
from fuzz.cases import arguments

SECONDS = 30
SECONDS_ON_JAX = 300  # where the first call of a shape compiles
MARGIN = 30  # what an estimate of the error may be below the error
LOOSE = 1e6  # and above it, on benign problems
BENIGN = 1e3
AS_A_CALLER_HAS = {"divide": "warn", "over": "warn", "invalid": "warn", "under": "ignore"}  # NumPy's own setting
SOFT = ("refused", "inaccurate")
HAVE = {name: importlib.util.find_spec(name) is not None for name in ("numpy", "torch", "jax")}


with_certificate = matsign.certify


class Broken(NamedTuple):
    promise: str
    seen: str


class HangError(BaseException):
    """A call that does not end; no Exception, so that nothing catches it on its way."""


# mpmath's QR iteration gives up with a RuntimeError.
REFERENCE_FAILS = (
    references.UnknownError,
    references.NoAnswerError,
    ArithmeticError,
    ValueError,
    RuntimeError,
    HangError,
)


@contextmanager
def limited(seconds):
    """At most so many seconds of the processor's time, whatever else the machine does; a deadlock is the watchdog's to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise HangError

    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


class Outcome(NamedTuple):
    """What one call gave: a value as a tuple of NumPy arrays, with a certificate if there is one, or an error."""

    value: tuple | None
    certificate: object
    error: Exception | None

    @property
    def kind(self):
        return None if self.error is None else type(self.error).__name__


put_on_device = None  # in place of the CPU, for tensors of PyTorch


def to_library(x, library):
    if x is None or library == "numpy":
        return x
    if library == "torch":
        import torch

        tensor = torch.from_numpy(np.array(x))
        return put_on_device(tensor) if put_on_device else tensor
    import jax

    return jax.numpy.asarray(x)


def to_numpy(x):
    return np.asarray(x.cpu() if hasattr(x, "cpu") else x)


def as_tuple(value):
    return tuple(to_numpy(x) for x in (value if isinstance(value, tuple) else (value,)))


class Checker:
    """Calls on behalf of one case: counts them, and collects what is broken."""

    def __init__(self, case):
        self.case, self.calls, self.broken = case, 0, []
        self.answered = False

    def note(self, promise, seen):
        self.broken.append(Broken(promise, seen))

    def call(self, f, arrays, options, library="numpy", label=""):
        """One call, watched: its time, warnings, exceptions and arguments."""
        self.calls += 1
        given = [to_library(x, library) for x in arrays]
        before = [None if x is None else x.tobytes() for x in arrays]
        where = f"{label or 'plain'} on {library}"
        try:
            limit = SECONDS_ON_JAX if library == "jax" else SECONDS
            with limited(limit), warnings.catch_warnings(record=True) as seen, np.errstate(**AS_A_CALLER_HAS):
                warnings.simplefilter("always")
                warnings.filterwarnings("ignore", message=".*dtype complex128 requested.*|.*dtype float64 requested.*")
                value = f(*given, **options)
            outcome = Outcome(*self._parts(value, certified=label.startswith("certify")), None)
        except HangError:
            self.note("hangs", where)
            return Outcome(None, None, TimeoutError())
        except (ValueError, TypeError) as error:
            # LinAlgError is a ValueError: only the library's own kind of it is an answer.
            if isinstance(error, np.linalg.LinAlgError) and not isinstance(error, matsign.SpectrumError):
                self.note("raw exception", f"{where}: {type(error).__name__}: {_line(error)}")
            outcome = Outcome(None, None, error)
        except Exception as error:
            self.note("raw exception", f"{where}: {type(error).__name__}: {_line(error)}")
            outcome = Outcome(None, None, error)
        for w in seen:
            self.note("warning", f"{where}: {w.category.__name__}: {_line(w.message)}")
        after = [None if x is None else to_numpy(x).tobytes() for x in given]
        if before != after:
            self.note("changes its input", where)
        return outcome

    def _parts(self, value, certified):
        return (as_tuple(value[0]), value[1]) if certified else (as_tuple(value), None)


def _line(text):
    return str(text).split("\n")[0][:160]


def check(case, rng, libraries=("numpy", "torch"), reference=True):
    """Every promise on one case: the checker with its counts and what is broken."""
    with np.errstate(all="ignore"):
        return _check(case, rng, libraries, reference)


def _check(case, rng, libraries, reference):
    c = Checker(case)
    f, arrays, options = case.subject.f, case.arrays, case.options
    plain = c.call(f, arrays, options)
    if isinstance(plain.error, (TimeoutError,)):
        return c
    quiet = _errors_as_nan(c, plain)
    certified = c.call(with_certificate(f), arrays, options, label="certify")
    _same_outcome(c, "certify differs from the plain call", plain, certified)
    if plain.error is None:
        c.answered = True
        _finite(c, plain, "numpy")
        if certified.error is None:
            _certificate_is_sane(c, certified, "numpy")
    if isinstance(plain.error, matsign.SpectrumError):
        _error_is_complete(c, plain.error)
    exact = None
    if reference and not isinstance(plain.error, TypeError):
        exact = reference_of(case)
        if exact is not None:
            _against_reference(c, exact, plain, certified, "numpy")
    for library in libraries:
        if library != "numpy" and HAVE[library]:
            _other_library(c, library, exact, certified)
    if quiet is not None:
        _batch(c, rng, quiet)
    if plain.error is None:
        _scaled(c, rng, plain)
        way = rng.integers(0, 6)
        if way == 0:
            _derivative(c, exact)
        elif way == 1:
            _condition_number(c, exact)
        elif way == 2:
            _tree(c, plain)
        elif way == 3:
            _optimiser(c)
    return c


def _same(a, b):
    """The same numbers, NaN for NaN (whose sign and payload mean nothing)."""
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _same_outcome(c, promise, one, other):
    if type(one.error) is not type(other.error):
        c.note(promise, f"{one.kind or 'a value'} and {other.kind or 'a value'} {_line(other.error or '')}")
    elif one.error is None and not _same(one.value, other.value):
        c.note(promise, f"by {_distance(one.value, other.value):.1e}")


def _distance(a, b):
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return np.inf
        with np.errstate(all="ignore"):
            x, y = (np.asarray(v, complex) for v in (x, y))
            top = np.abs(y).max(initial=0) or 1.0
            size, gap = np.linalg.norm((y / top).ravel()), np.linalg.norm(((x - y) / top).ravel())
        worst = max(worst, gap / size if size else gap)
    return float(worst)


def _errors_as_nan(c, plain):
    """errors="nan" answers the same where there is an answer, and with NaN where there is none."""
    quiet = c.call(c.case.subject.f, c.case.arrays, c.case.options | {"errors": "nan"}, label='errors="nan"')
    if isinstance(plain.error, matsign.SpectrumError):
        if quiet.error is not None:
            c.note('errors="nan" raises', f"{quiet.kind}: {_line(quiet.error)}")
        elif not all(np.isnan(x).all() for x in quiet.value):
            c.note('errors="nan" has numbers where "raise" raises', _line(plain.error))
    else:
        _same_outcome(c, 'errors="nan" differs from "raise"', plain, quiet)
    return quiet if quiet.error is None else None


def _finite(c, outcome, library):
    value = outcome.value
    if c.case.subject.name == "hinf_norm":  # a peak may be at infinity
        value = [np.where(np.isinf(x), 0, x) for x in value[1:]] + list(value[:1])
    if c.case.subject.name in (
        "hankel_singular_values",
        "balanced_truncation",
    ):  # infinite for poles that are not stable
        value = [*value[:-1], np.where(np.isposinf(value[-1]), 0, value[-1])]
    if not all(np.isfinite(x).all() for x in value):
        c.note("not finite without an error", library)


def _error_is_complete(c, error):
    if error.members != [()] or len(error.failures) != 1 or error.value is None:
        c.note("an error without its value", f"members {error.members}, value {type(error.value).__name__}")
    try:
        back = pickle.loads(pickle.dumps(error))
        if str(back) != str(error) or back.members != error.members:
            c.note("an error that pickle changes", _line(back))
    except Exception as problem:
        c.note("an error that cannot be pickled", _line(problem))


def _certificate_is_sane(c, outcome, library):
    certificate = outcome.certificate
    if not certificate.converged:
        c.note("a value that has not converged", library)
    for name in ("backward_error", "forward_error"):
        x = float(getattr(certificate, name))
        if not x >= 0:
            c.note(f"{name} is {x}", library)


def reference_of(case):
    """The exact results, None where the reference does not know, or a `NoAnswerError`."""
    if case.subject.reference is None:
        return None
    if not all(x is None or np.isfinite(x).all() for x in case.arrays) or any(
        0 in x.shape for x in case.arrays if x is not None
    ):
        return None
    try:
        with limited(SECONDS), mp.workdps(references.DIGITS):
            return case.subject.reference(*case.arrays, **case.options)
    except references.NoAnswerError as error:
        return error
    except REFERENCE_FAILS:
        return None


def error_of(value, exact, beside_the_answer=False):
    """The largest error over the results, relative to the exact ones; or to the larger one of both, as certificates have it."""
    worst = 0.0
    for x, y in zip(value, exact, strict=True):
        if not (np.asarray(x).dtype == object or np.isfinite(x).all()):
            return np.inf
        x = x if x.dtype == object else truth.exact(x)
        size, gap = truth.size(y), truth.size(x - y)
        if beside_the_answer and size:
            size = max(size, truth.size(x))
        if size:  # beside zero there is no relative error
            worst = max(worst, float(gap / size))
    return worst


def _representable(exact, dtype):
    """Whether the exact results are numbers of that dtype, far from its edges and not zero."""
    info = np.finfo(dtype)
    return all(float(info.tiny) / float(info.eps) < truth.size(x) < float(info.max) / 16 for x in exact)


def _dtype(case):
    return np.result_type(*(x for x in case.arrays if x is not None))


def _against_reference(c, exact, plain, certified, library):
    case = c.case
    eps = float(np.finfo(_dtype(case)).eps)
    default = case.options.get("method", "auto") == "auto"
    if isinstance(exact, references.NoAnswerError):
        return
    if not _representable(exact, _dtype(case)):
        return
    if plain.error is not None:
        if default and "rtol" not in case.options and isinstance(plain.error, matsign.SpectrumError):
            grown = condition(case, exact)
            if grown is not None and grown * eps < 1e-6:
                c.note("refused", f"condition {grown:.1e}: {_line(plain.error)}")
        return
    compared = case.subject.compared
    value = compared(plain.value, *case.arrays) if compared else plain.value
    true = error_of(value, exact)
    if certified.error is None:
        claimed = float(certified.certificate.forward_error)
        if error_of(value, exact, beside_the_answer=True) > MARGIN * max(claimed, eps):
            c.note("forward error too small", f"{claimed:.1e} where the error is {true:.1e} on {library}")
        elif compared is None and claimed > LOOSE * max(true, eps):
            # What is not compared, such as poles, has an error of its own: a pole 1e-8 beside a gain 1 has half its digits.
            grown = condition(case, exact)
            if grown is not None and grown < BENIGN and not (_at_a_jump(case) or _at_the_boundary(case, exact)):
                c.note(
                    "forward error too large",
                    f"{claimed:.1e} where the error is {true:.1e}, condition {grown:.0e} on {library}",
                )
    if true > 1e4 * eps and default and library == "numpy":
        grown = condition(case, exact)
        if grown is not None and true > 1e4 * eps * max(grown, 1):
            c.note("inaccurate", f"error {true:.1e} at condition {grown:.1e}")


def _at_a_jump(case):
    """Whether rounding may move an eigenvalue across the axis, where a sign jumps: few directions show that."""
    if case.subject.name == "spectral_projector":
        return not references.clear(references.to_axis(*case.arrays, case.options.get("at")))
    return case.subject.name == "mcsgn" and not references.clear(case.arrays[0])


# How the names of functions end that solve the Riccati equation of a plant.
RICCATI = ("_are", "extremal_solutions")


def _at_the_boundary(case, exact):
    """Whether rounding leaves open on which side of the boundary of stability a pole of a Riccati equation lies."""
    if not case.subject.name.endswith(RICCATI):
        return False
    discrete = "discrete" in case.subject.name
    with mp.workdps(references.DIGITS):
        poles = [p for x in exact for p in references.closed_loop_poles(discrete, x, *case.arrays)]
    apart = min(abs(1 - abs(x)) if discrete else abs(x.real) for x in poles)
    return apart < 1e3 * np.finfo(_dtype(case)).eps * (1 if discrete else max(abs(x) for x in poles))


STEP = 2.0**-40
# A growth of relative errors below this is none.
NOTHING = 1e-30


def condition(case, exact):
    """By how much small relative changes of the arguments grow in the results, from two random directions; None if unknown.

    The first of them is taken to both sides: beside a branch cut one of the two crosses it.
    """
    grown = 0.0
    size = STEP if _dtype(case).name in ("float64", "complex128") else 2.0**-21
    for seed, step in ((7, size), (7, -size), (8, size)):
        rng = np.random.default_rng(seed)
        try:
            moved = [_moved(rng, x, step) for x in case.arrays]
            with limited(SECONDS), mp.workdps(references.DIGITS):
                other = case.subject.reference(*moved, **case.options)
        except REFERENCE_FAILS:
            return None
        for y, z in zip(exact, other, strict=True):
            whole = truth.size(y)
            if whole:
                grown = max(grown, float(truth.size(z - y) / whole / size))
    return grown


def _moved(rng, x, step):
    """An array changed by a small part of its norm, Hermitian if it was."""
    if x is None or not x.size or not x.any():
        return x
    wide = x.astype(np.result_type(x.dtype, np.float64))
    noise = rng.standard_normal(x.shape)
    if x.dtype.kind == "c":
        noise = noise + 1j * rng.standard_normal(x.shape)
    if x.ndim >= 2 and x.shape[-2] == x.shape[-1] and np.array_equal(x, x.conj().swapaxes(-1, -2)):
        noise = noise + noise.conj().swapaxes(-1, -2)
    top = np.abs(wide).max()
    return wide + noise / np.linalg.norm(noise) * (np.linalg.norm(wide / top) * step * top)


def _other_library(c, library, exact, certified):
    case = c.case
    other = c.call(with_certificate(case.subject.f), case.arrays, case.options, library, "certify")
    if other.error is not None or certified.error is not None:
        if isinstance(other.error, matsign.SpectrumError) and other.error.value is None:
            c.note("an error without its value", library)
        return
    _finite(c, other, library)
    _certificate_is_sane(c, other, library)
    if exact is not None and not isinstance(exact, references.NoAnswerError):
        _against_reference(c, exact, other, other, library)
        return
    eps = float(np.finfo(_dtype(case)).eps)
    allowed = MARGIN * sum(max(float(x.certificate.forward_error), eps) for x in (certified, other))
    if case.subject.name.endswith("factor"):
        return
    compared = case.subject.compared or (lambda value, *arrays: value)  # poles, for one, come in any order
    ends = [compared(tuple(x.value), *case.arrays) for x in (other, certified)]
    # Beside the larger of the two: an answer with no digit may be larger by any factor.
    apart = min(_distance(*ends), _distance(*ends[::-1]))
    if not apart <= allowed:
        c.note("libraries disagree", f"numpy and {library} by {apart:.1e}, certificates allow {allowed:.1e}")


def _batch(c, rng, quiet):
    """Members give the bits that they give alone, beside a bad one too."""
    case, subject = c.case, c.case.subject
    shapes = [None if x is None else x.shape for x in case.arrays]
    n, m = _sizes(subject, shapes)
    others = []
    for _ in range(4):
        drawn = arguments(rng, subject, n, m, _dtype(case).name)
        if [None if x is None else x.shape for x in drawn] == shapes and _acceptable(c, subject, drawn):
            others.append(drawn)
    others = others[:2]
    bad = list(case.arrays)
    place = int(rng.choice([k for k, x in enumerate(bad) if x is not None]))
    bad[place] = hostile.spoiled(rng, bad[place])
    if _acceptable(c, subject, bad):
        others.append(tuple(bad))
    members = [case.arrays, *others]
    order = rng.permutation(len(members))
    stacked = [None if x is None else np.stack([members[k][p] for k in order]) for p, x in enumerate(case.arrays)]
    options = case.options | {"errors": "nan"}
    whole = c.call(subject.f, stacked, options, label="batch")
    if whole.error is not None:
        c.note("a member spoils the batch", f"{whole.kind}: {_line(whole.error)}")
        return
    for place, k in enumerate(order):
        alone = quiet if k == 0 else c.call(subject.f, members[k], options, label='errors="nan"')
        if alone.error is not None:
            c.note("a member that is refused alone", f"{alone.kind}: {_line(alone.error)}")
            continue
        part = tuple(x[place] for x in whole.value)
        if subject.name.endswith(("factor", "realization")):  # whose size depends on the batch
            part = tuple(x[tuple(map(slice, y.shape))] for x, y in zip(part, alone.value, strict=True))
        if subject.name == "balanced_truncation" and part[0].shape != alone.value[0].shape and "tol" in options:
            continue  # others need more states
        if not _same(part, alone.value):
            c.note("a member differs from its single call", f"by {_distance(part, alone.value):.1e}")


def _acceptable(c, subject, arrays):
    """Whether q and r are Hermitian, as NumPy arrays must be."""
    names = subject.f.spec.parameters.arrays
    hermitian = subject.f.spec.parameters.hermitian
    for name, x in zip(names, arrays, strict=False):
        if (
            name in hermitian
            and x is not None
            and np.isfinite(x).all()
            and not np.array_equal(x, x.conj().swapaxes(-1, -2))
        ):
            return False
    return True


# Functions whose first two arguments are square and of different sizes.
_TWO_SIZES = (
    "solve_sylvester",
    "solve_discrete_sylvester",
    "solve_generalized_sylvester",
    "solve_sylvester_pair",
    "solve_riccati",
)


def _sizes(subject, shapes):
    if len(shapes) == 1:
        return shapes[0]
    if len(shapes[0]) == 3:
        return shapes[0][2], shapes[0][0]
    n = shapes[0][0]
    m = next((s[1] for s in shapes[1:] if s is not None and s[0] == n), n)
    return (n, shapes[1][0]) if subject.name in _TWO_SIZES else (n, m)


def _times_power_of_two(x, exponent):
    """2**exponent x; a product of complex numbers would change the signs of zeros."""
    scaled = np.array(x)
    for part in (scaled.real, scaled.imag) if np.iscomplexobj(scaled) else (scaled,):
        part *= part.dtype.type(2.0**exponent)
    return scaled


def _scaled(c, rng, plain):
    """Powers of two come out as powers of two, to the last bit."""
    case = c.case
    if (
        case.subject.scales is None
        or case.options.get("at")
        or not _well_inside(case.arrays)
        or not _well_inside(plain.value)
    ):
        return
    before, after = case.subject.scales
    step = (
        int(rng.choice([-12, 4, 10])) if _dtype(case).name in ("float32", "complex64") else int(rng.choice([-80, 64]))
    )
    arrays = [
        None if x is None else _times_power_of_two(x, p * step) for x, p in zip(case.arrays, before, strict=False)
    ]
    scaled = c.call(case.subject.f, arrays, case.options, label=f"scaled by 2**{step}")
    if scaled.error is not None:
        c.note("scaling by a power of two changes the outcome", f"2**{step}: {scaled.kind} {_line(scaled.error)}")
        return
    expected = tuple(_times_power_of_two(x, p * step) for x, p in zip(plain.value, after, strict=True))
    if not _same(scaled.value, expected):
        c.note("scaling by a power of two changes bits", f"2**{step}: by {_distance(scaled.value, expected):.1e}")


def _well_inside(arrays):
    """No entry comes near the edges of the exponent range when it is scaled."""
    for x in arrays:
        if x is None or not x.size:
            continue
        sizes = np.abs(np.concatenate([x.real.ravel(), x.imag.ravel()]) if x.dtype.kind == "c" else x.ravel())
        sizes = sizes[sizes > 0]
        limit = 1e10 if x.dtype.name in ("float32", "complex64") else 1e100
        if not ((sizes < limit) & (sizes > 1 / limit)).all():
            return False
    return True


def _derivative(c, exact):
    """frechet(f) is the difference of the exact answers on both sides, where those change smoothly."""
    case, step = c.case, 2.0**-30
    narrow = _dtype(case).name in ("float32", "complex64")
    if not isinstance(exact, tuple) or narrow or not _representable(exact, _dtype(case)):
        return
    grown = condition(case, exact)
    if grown is None or grown > BENIGN or not _well_inside(case.arrays):
        return
    if any(0 < case.options.get(t, 0) < 1e3 * step * np.linalg.norm(case.arrays[0]) for t in ("t", "lower", "upper")):
        return  # a singular value that the step takes across the threshold, to both sides alike
    one, other = ([_moved(np.random.default_rng(5), x, h) for x in case.arrays] for h in (step, -step))
    directions = [None if x is None else x - y for x, y in zip(one, other, strict=True)]
    found = c.call(matsign.frechet(case.subject.f), (*case.arrays, *directions), case.options, label="frechet")
    ends = [reference_of(case._replace(arrays=tuple(xs))) for xs in (one, other)]
    if found.error is not None:
        c.note("no derivative", f"{found.kind}: {_line(found.error)}")
    if found.error is not None or not all(isinstance(x, tuple) for x in ends):
        return
    if case.subject.compared:
        return
    allowed = 1e-5 * max(grown, 1.0) + _hidden_in_the_loop(c, exact)
    for k, (x, y, z) in enumerate(zip(found.value, *ends, strict=True)):
        size, off = truth.size(exact[k]), truth.size(truth.exact(x) - (y - z))
        bend = truth.size(y + z - 2 * exact[k])
        if bend > 1e-5 * step * size:  # an eigenvalue at zero, a singular value at a threshold
            continue
        if (allowed < 1 and not np.isfinite(x).all()) or off > allowed * step * size:
            c.note("a wrong derivative", f"by {float(off / size) / step:.1e} of the value, condition {grown:.0e}")


def _hidden_in_the_loop(c, exact):
    """What rounding of the closed loop a - b k does to the equation that the derivative of a Riccati solution solves.

    Of strongly unstable plants the solution is well conditioned and that equation is not.
    """
    if not c.case.subject.name.endswith(RICCATI):
        return 0.0
    discrete, (a, b, *_, g) = "discrete" in c.case.subject.name, c.case.arrays[:7]
    b = g if b is None else b
    with mp.workdps(references.DIGITS):
        k = max(float(truth.size(references.gain(discrete, x, *c.case.arrays))) for x in exact)
    separation = with_certificate(c.case.subject.f)(*c.case.arrays, **c.case.options)[1].separation
    size = float(np.linalg.norm(a)) + float(np.linalg.norm(b)) * k
    return 10 * 2.0**-52 * size * (max(size, 1.0) if discrete else 1.0) / float(separation)


def _condition_number(c, exact):
    """condition(f) is a number, and not far below what a random direction shows."""
    case = c.case
    found = c.call(matsign.condition(case.subject.f), case.arrays, case.options, label="condition")
    if found.error is not None:
        c.note("no condition number", f"{found.kind}: {_line(found.error)}")
        return
    value = float(found.value[0])
    if not value >= 0:
        c.note("condition is not a number", str(value))
    elif isinstance(exact, tuple) and _representable(exact, _dtype(case)) and _well_inside(case.arrays):
        if case.subject.compared:
            return
        shown = condition(case, exact)
        # Rounding of the reference over the step is no growth: 80 digits leave 1e-69 of a derivative that is zero, and more of
        # one that passes through other digits.
        if shown is not None and NOTHING < shown < BENIGN and value < shown / MARGIN:
            c.note("condition too small", f"{value:.1e} where a random direction shows {shown:.1e}")


def _tree(c, plain):
    """each(f) gives every matrix of a tree the bits that it has alone."""
    case = c.case
    if len(case.arrays) > 1:
        return
    found = c.call(
        lambda m, **options: matsign.each(case.subject.f)({"a": m, "b": [m, None]}, **options)["b"][0],
        case.arrays,
        case.options,
        label="each",
    )
    _same_outcome(c, "each differs from the plain call", plain, found)


def _optimiser(c):
    """A step of Muon on any finite gradient leaves finite parameters."""
    case = c.case
    if case.subject.name != "msign" or not HAVE["torch"] or case.arrays[0].dtype.kind == "c":
        return
    import torch

    from matsign.optim import Muon

    def step(m):
        parameter = torch.nn.Parameter(torch.ones_like(m))
        parameter.grad = m
        Muon([parameter], lr=0.1).step()
        return parameter.detach()

    found = c.call(step, case.arrays, {}, "torch", "a step of Muon")
    if found.error is None:
        _finite(c, found, "Muon")
    elif 0 not in case.arrays[0].shape:
        c.note("Muon takes no step", f"{found.kind}: {_line(found.error)}")
