"""A public function, how strangers call it, and what its answer is: one `Subject` each."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import matsign
import truth
from fuzz import hostile, references
from keyword_arrays import by_position

DTYPES = ("float64", "float64", "float64", "complex128", "float32", "complex64")
REAL = {"complex128": "float64", "complex64": "float32"}


class Subject(NamedTuple):
    """A function and how to fuzz it.

    `arguments(rng, sizes)` are float64 arrays by their places, None where left out; `options(rng)` what else is passed.
    `reference(*arrays, **options)` is a tuple of exact results; None where
    the options ask for something else than the exact answer. `scales` are the powers of a common factor in the arguments and
    in the results, None where there is no such law.
    """

    name: str
    arguments: Callable
    options: Callable
    reference: Callable | None
    scales: tuple | None = None
    compared: Callable | None = None

    @property
    def f(self):
        return by_position(getattr(matsign, self.name))


class Case(NamedTuple):
    """One call: what is called, with what."""

    subject: Subject
    arrays: tuple[Any, ...]
    options: dict[str, Any]

    def __str__(self):
        """A line to paste behind ``import numpy as np, matsign``."""
        parameters = getattr(matsign, self.subject.name).spec.parameters
        names = [f"{name}=" if name in parameters.keyword_arrays else "" for name in parameters.arrays]
        written = zip(names, map(_written, self.arrays), strict=False)
        arrays = ", ".join(name + x for name, x in written if name == "" or x != "None")
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"matsign.{self.subject.name}({arrays}{options})"


def _written(x):
    if x is None:
        return "None"
    kind = "" if x.dtype == np.float64 else f", {x.dtype.name!r}"
    if not x.size:
        return f"np.zeros({x.shape}{kind})"
    text = repr(x.tolist())
    for word in ("nan", "inf"):
        text = text.replace(word, f"np.{word}")
    return f"np.array({text}{kind})"


def _one(f):
    return lambda *arrays, **options: (f(*arrays, **options),)


def _methods(*names, share=0.5):
    """Options with method= left out or one of the names."""

    def draw(rng, options):
        if rng.random() > share:
            options["method"] = names[rng.integers(len(names))]
        return options

    return draw


def _rtol(rng, options):
    if rng.random() < 0.2:
        options["rtol"] = float(rng.choice([0.0, 1e-10, 1e-6, 1e-3]))
    return options


def _tol(rng, options):
    if rng.random() < 0.1:
        options["tol"] = float(rng.choice([1e-1, 1e-2, 1e-4, 1e-6]))
    return options


def _half_plane(rng, options):
    if rng.random() < 0.3:
        options["half_plane"] = str(rng.choice(["left", "right"]))
    return options


def _other_side(option, side):
    """Now and then the anti-stabilising solution."""
    return lambda rng, options: options | {option: side} if rng.random() < 0.25 else options


def _line(rng, options):
    way = rng.integers(0, 4)
    if way == 0:
        return options | {"at": float(rng.choice([0.0, 1.0, -0.3, 1e-3, -1e6]))}
    if way == 1:
        return {k: v for k, v in options.items() if k == "rtol"} | {"lowest": int(rng.integers(0, 3))}
    return options


def _options(*draws):
    def draw(rng):
        options = {}
        for each in draws:
            options = each(rng, options)
        return options

    return draw


def _clip(rng, options):
    way = rng.integers(0, 4)
    if way == 1:
        options["upper"] = float(10.0 ** rng.uniform(-3, 3))
    elif way == 2:
        options["lower"], options["upper"] = 0.5, float(rng.choice([2.0, 0.5, np.inf]))
    elif way == 3:
        options["upper"] = 0.0
    return options


def _upper(rng, options):
    return options | {"upper": float(rng.choice([0.0, 0.5, 1.0, 1e-8, 1e3, np.inf]))}


def _rank(rng, options):
    return options | {"rank": int(rng.integers(1, 5))} if rng.random() < 0.3 else options


def _threshold(rng, options):
    return options | {"t": float(rng.choice([0.0, 0.5, 1.0, 1e-8, 1e3]))}


def _weight(rng, options):
    return options | {"t": float(rng.choice([0.25, 0.9, 1 / 3, 1e-3, 0.0, 1.0]))} if rng.random() < 0.5 else options


def _schedules(rng, options):
    way = rng.integers(0, 12)
    if way == 0:
        options["steps"] = int(rng.integers(1, 9))
    elif way == 1:
        options["schedule"] = str(rng.choice(["muon", "you", "su", "cans", "polar_express"]))
    elif way == 3:
        options["precision"], options["steps"] = str(rng.choice(["half", "full"])), 5
    elif way == 2:
        options["tol"], options["steps"] = float(rng.choice([0.2, 1e-2, 1e-4])), int(rng.integers(1, 9))
    return options


def _square(rng, n, m):
    return (hostile.square(rng, n),)


def _pencil(rng, n, m):
    overlap = hostile.pick(rng, hostile.HERMITIAN, n) if rng.random() < 0.5 else None
    return hostile.pick(rng, hostile.HERMITIAN, n) if rng.random() < 0.4 else hostile.square(rng, n), overlap


def _hamiltonian(rng, n, m):
    overlap = hostile.definite(rng, n) if rng.random() < 0.3 else None
    return hostile.pick(rng, hostile.HERMITIAN, n), overlap


def _filling(rng, options):
    options |= {"kT": float(10.0 ** rng.uniform(-4, 2))}
    way = rng.integers(0, 3)
    if way == 1:
        return options | {"mu": float(rng.choice([0.5, -1.0, 1e-3, 1e4]))}
    return options | {"electrons": float(rng.choice([1.0, 0.5, 0.03]))} if way == 2 else options


def _rectangular(rng, n, m):
    return (hostile.rectangular(rng, n, m),)


def _moving(rng, n, m):
    """A matrix with no state, that of itself or of a near matrix, one with other values, or any numbers."""
    a, way = hostile.rectangular(rng, n, m), rng.integers(0, 5)
    if way == 0 or not np.isfinite(a).all():
        return a, None
    before = (
        a if way == 1 else a + np.abs(a).max(initial=0) * rng.choice([1e-9, 1e-5, 1e-2]) * hostile.gaussian(rng, n, m)
    )
    u, _, vh = np.linalg.svd(before, full_matrices=False)
    state = np.concatenate([u, vh.T])
    return a, state if way < 4 else state * rng.choice([1.0, -1.0, 2.0, np.nan], state.shape)


def _leading(rng, n, m):
    """A matrix with no state, or with singular vectors of a near matrix or of another one, or any numbers."""
    a, state = _moving(rng, n, m)
    if state is None or min(n, m) == 0:
        return a, None
    v = state[n:] if n >= m else state[:n]
    return a, v[:, : rng.integers(1, min(n, m), endpoint=True)]


def _two_leading(rng, n, m):
    """The same with two singular vectors or more."""
    a, state = _moving(rng, max(n, 2), max(m, 2))
    if state is None:
        return a, None
    v = state[len(a) :] if len(a) >= a.shape[1] else state[: len(a)]
    return a, v[:, : rng.integers(2, min(a.shape), endpoint=True)]


def _best_approximation(value, *_):
    """The singular values, and u diag(s) vh."""
    u, s, vh, _ = value
    return s, (u * s[..., None, :]) @ vh


def _rotated(rng, n, m):
    return (hostile.rectangular(rng, n, n),)


def _points(rng, n, m):
    p = hostile.rectangular(rng, n, m) if rng.random() < 0.5 else hostile.gaussian(rng, n, m)
    way = rng.integers(0, 3)
    if way == 0:
        return p, hostile.rectangular(rng, n, m)
    q = p @ hostile.orthogonal(rng, m)
    return p, q if way == 1 else q + 1e-3 * hostile.gaussian(rng, n, m)


def _weight_and_gradient(rng, n, m):
    """Orthonormal columns or rows, some to single precision, some twice as long; any gradient, or one nearly normal."""
    w = (
        np.linalg.qr(hostile.gaussian(rng, max(n, m), min(n, m)))[0]
        if rng.random() < 0.7
        else np.eye(max(n, m), min(n, m))
    )
    way, g = rng.integers(0, 8), hostile.rectangular(rng, n, m)
    w = w if n >= m else w.T
    if way == 0:
        g = w * np.abs(g).max(initial=0) + rng.choice([0.0, 1e-12, 1e-6]) * hostile.gaussian(rng, n, m)
    if way == 1:
        w = w.astype("float32").astype("float64")
    return (2.0 * w if way == 2 else w), g


def _any_weight(rng, n, m):
    if rng.random() < 0.3:
        return _weight_and_gradient(rng, n, m)
    return hostile.rectangular(rng, n, m), hostile.rectangular(rng, n, m)


def _gap(rng, options):
    return options | {"gap": float(rng.choice([1e-2, 1e-6]))} if rng.random() < 0.2 else options


def _weighted_points(rng, n, m):
    p, q = _points(rng, n, m)
    w = None if rng.random() < 0.3 else rng.random(n) * 10.0 ** rng.uniform(-rng.choice([0, 0, 9]), 0, n)
    return p, q, w if w is None or rng.random() < 0.9 else w * rng.choice([0.0, 1.0, -1.0], n)


def _covariances(rng, n, m):
    a, b = (
        hostile.definite(rng, n) if rng.random() < 0.6 else hostile.pick(rng, hostile.HERMITIAN, n) for _ in range(2)
    )
    way = rng.integers(0, 8)
    return a, a if way == 0 else a + 1e-6 * b if way == 1 else b


def _factors(rng, n, m):
    f = hostile.rectangular(rng, n, m)
    way = rng.integers(0, 6)
    return f, f if way == 0 else hostile.rectangular(rng, n, int(rng.integers(1, 5)))


def _samples(rng, n, m):
    x = hostile.rectangular(rng, n, m)
    way = rng.integers(0, 6)
    return x, x if way == 0 else hostile.rectangular(rng, int(rng.integers(1, 6)), m)


def _definite_pair(rng, n, m):
    a, b = _covariances(rng, n, m)
    units = np.ldexp(1.0, rng.integers(-60, 60, n)) if rng.random() < 0.3 else np.ones(n)
    return tuple(units[:, None] * x * units for x in (a, b))


def _collection(rng, n, m):
    """A few covariance matrices, near to each other or not, of different sizes or not; and weights, some of which are 0."""
    k = max(1, m)
    first = hostile.definite(rng, n)
    makers = [hostile.definite] * 12 + [hostile.graded_definite, hostile.semidefinite, hostile.symmetric]
    others = [makers[rng.integers(len(makers))](rng, n) for _ in range(k - 1)]
    way = rng.integers(0, 6)
    others = [first + 1e-4 * x if way == 0 else x * 10.0 ** rng.uniform(-9, 9) if way == 1 else x for x in others]
    weights = None if rng.random() < 0.4 else rng.random(k) * 10.0 ** rng.uniform(-rng.choice([0, 0, 6]), 0, k)
    if weights is not None and rng.random() < 0.1:
        weights = weights * rng.choice([0.0, 1.0, -1.0], k)
    return np.stack([first, *others]), weights


def _gaussians(rng, n, m):
    a, b = _covariances(rng, n, m)
    return hostile.gaussian(rng, n, 1)[:, 0], a, hostile.gaussian(rng, n, 1)[:, 0], b


def _squared(rng, options):
    if rng.random() < 0.5:
        options["squared"] = bool(rng.random() < 0.5)
    return options


def _roots(rng, n, m):
    way = rng.integers(0, 4)
    if way == 0:
        return (hostile.square(rng, n),)
    if way == 1:
        return (hostile.pick(rng, hostile.HERMITIAN, n),)
    return (hostile.positive_stable(rng, n),)


def _product(rng, n, m):
    return hostile.rectangular(rng, m, n), *_roots(rng, n, m)


def _order(rng, options):
    return options | {"p": int(rng.integers(1, 13))}


def _exponent(rng, options):
    return options | {"t": float(rng.choice([1 / 3, -1 / 3, 0.25, -0.25, 0.75, -0.75, 0.1, 2.5, 2.0, -1.0]))}


def _pairs(rng, n, m):
    way = rng.integers(0, 3)
    if way == 0:
        a = hostile.pick(rng, hostile.HERMITIAN, n)
        return a, a if rng.random() < 0.1 else hostile.pick(rng, hostile.HERMITIAN, n)
    if way == 1:
        return hostile.positive_stable(rng, n), hostile.definite(rng, n, 10.0)
    with np.errstate(all="ignore"):  # B = A⁻¹ times a definite matrix
        a = hostile.square(rng, n) + 1e-3 * hostile.gaussian(rng, n)
        return a, np.linalg.pinv(a) @ hostile.definite(rng, n) if n else a


def _sylvester(rng, n, m):
    if rng.random() < 0.3:
        a, b = hostile.square(rng, n), hostile.square(rng, m)
    else:
        a, b = hostile.positive_stable(rng, n), hostile.positive_stable(rng, m)
    if rng.random() < 0.2:
        a, b = -a, -b
    return a, b, hostile.rectangular(rng, n, m)


def _lyapunov(rng, n, m):
    a = hostile.square(rng, n) if rng.random() < 0.3 else -hostile.positive_stable(rng, n)
    return a, hostile.pick(rng, hostile.HERMITIAN, n) if rng.random() < 0.6 else hostile.square(rng, n)


def _stein(rng, n, m):
    a = hostile.square(rng, n) if rng.random() < 0.2 else hostile.contraction(rng, n)
    return a, hostile.pick(rng, hostile.HERMITIAN, n) if rng.random() < 0.6 else hostile.square(rng, n)


def _discrete_sylvester(rng, n, m):
    a, b = (hostile.square(rng, k) if rng.random() < 0.3 else hostile.contraction(rng, k) for k in (n, m))
    return a, b, hostile.rectangular(rng, n, m)


def _generalized_sylvester(rng, n, m):
    pencils = [hostile.square(rng, k) if rng.random() < 0.3 else hostile.positive_stable(rng, k) for k in (n, m)]
    others = [
        hostile.square(rng, k) if rng.random() < 0.3 else np.eye(k) + 0.2 * hostile.gaussian(rng, k) for k in (n, m)
    ]
    return *pencils, *others, hostile.rectangular(rng, n, m)


def _sylvester_pair(rng, n, m):
    a, b, d, e, c = _generalized_sylvester(rng, n, m)
    return a, -b, c, d, e, hostile.rectangular(rng, n, m)


def _with_descriptor(make):
    """Now and then an e behind the arguments, by which a is multiplied most often."""

    def draw(rng, n, m):
        a, *rest = make(rng, n, m)
        if rng.random() > 0.35:
            return a, *rest
        ill = hostile.given_singular_values if rng.random() < 0.3 else None
        e = ill(rng, n) if ill else np.eye(n) + 0.2 * hostile.gaussian(rng, n)
        e = hostile.square(rng, n) if rng.random() < 0.05 else e
        with np.errstate(all="ignore"):
            return e @ a if rng.random() < 0.9 else a, *rest, e

    return draw


def _factor(rng, n, m):
    return -hostile.positive_stable(rng, n), hostile.rectangular(rng, n, m)


def _discrete_factor(rng, n, m):
    return hostile.contraction(rng, n), hostile.rectangular(rng, n, m)


def _model_with_d(rng, n, m):
    return *_model(rng, n, m), hostile.rectangular(rng, m, m) if rng.random() < 0.5 else None


def _model(rng, n, m):
    return -hostile.positive_stable(rng, n), hostile.rectangular(rng, n, m), hostile.rectangular(rng, m, n)


def _riccati_model(rng, n, m):
    a, b, c = _model(rng, n, m)
    return hostile.square(rng, n) if rng.random() < 0.5 else a, b, c


def _any_model(rng, n, m):
    """A model that is stable in continuous or discrete time, or not stable."""
    _, b, c = _model(rng, n, m)
    a = (lambda rng, n: -hostile.positive_stable(rng, n), hostile.contraction, hostile.square)[
        rng.choice(3, p=[0.5, 0.3, 0.2])
    ]
    return a(rng, n), b, c


def _any_model_with_d(rng, n, m):
    return *_any_model(rng, n, m), hostile.rectangular(rng, m, m) if rng.random() < 0.5 else None


def _sampling_time(rng, options):
    return options | {"dt": 0.1} if rng.random() < 0.4 else options


def _order_or_tol(rng, options):
    way = {"order": 1} if rng.random() < 0.7 else {"tol": float(10.0 ** rng.uniform(-6, 2))}
    return options | way | ({"method": "matchdc"} if rng.random() < 0.5 else {})


def _finite(f):
    """A reference with zeros in place of infinity."""
    return lambda *arrays, **options: (_finite_part(f(*arrays, **options)),)


def _finite_part(values):
    return np.array([0 * x if abs(x) == np.inf else x for x in values], values.dtype)


def _discrete_model(rng, n, m):
    d = hostile.rectangular(rng, m, m) if rng.random() < 0.5 else None
    return hostile.contraction(rng, n), hostile.rectangular(rng, n, m), hostile.rectangular(rng, m, n), d


def _redundant(rng, n, m):
    """A model, often with states that no input reaches or no output shows."""
    a, b, c = hostile.square(rng, n), hostile.rectangular(rng, n, m), hostile.rectangular(rng, m, n)
    for _ in range(rng.integers(0, 3)):
        k, x = rng.integers(0, n + 1), rng.random()
        if x < 0.5:
            a[k:, :k], b[k:] = 0, 0
        else:
            a[k:, :k], c[:, :k] = 0, 0
    if rng.random() < 0.5:
        q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        with np.errstate(all="ignore"):
            a, b, c = q @ a @ q.T, q @ b, c @ q.T
    return a, b, c, hostile.rectangular(rng, m, m) if rng.random() < 0.3 else None


def _unstable_model(rng, n, m):
    a, b, c, d = _model_with_d(rng, n, m)
    return (a if rng.random() < 0.3 else hostile.square(rng, n)), b, c, d


def _bound(rng):
    return {"gamma": float(rng.choice([0.1, 10, 1e3, 1e6]))} if rng.random() < 0.7 else {}


def _values(value, *arrays):
    return (value[4],)


def _largest_order(rng, options):
    return options | {"order": int(rng.integers(1, 3))} if rng.random() < 0.1 else options


def _transfer_function(value, a, b, c, d):
    return references.transfer_at(a, *value[:3]), value[3]


def _riccati(rng, n, m):
    return (
        -hostile.positive_stable(rng, n),
        hostile.positive_stable(rng, m),
        0.3 * hostile.rectangular(rng, n, m),
        0.3 * hostile.rectangular(rng, m, n),
    )


def _plant(rng, n, m):
    way = rng.integers(0, 6)
    if way == 0:
        a = hostile.mild(rng, n) + 4 * np.eye(n)
    elif way == 1:
        a = hostile.square(rng, n)
    elif way == 2:
        a = -hostile.positive_stable(rng, n)
    else:
        a = hostile.mild(rng, n)
    b = hostile.rectangular(rng, n, m) if way != 3 or not n else np.eye(n)[:, -1:] @ np.ones((1, m))
    q = hostile.pick(rng, hostile.HERMITIAN, n) if rng.random() < 0.4 else np.eye(n)
    r = hostile.definite(rng, m) if rng.random() < 0.6 else np.eye(m)
    if rng.random() < 0.1:
        q, r = q * 10.0 ** rng.uniform(-10, 10), r * 10.0 ** rng.uniform(-10, 10)
    return a, b, q, r


def _are(rng, n, m):
    a, b, q, r = _plant(rng, n, m)
    e = np.eye(n) + 0.2 * hostile.gaussian(rng, n) if rng.random() < 0.2 else None
    s = 0.1 * hostile.gaussian(rng, n, m) if rng.random() < 0.2 else None
    return a, b, q, r, e, s


def _finite_horizon(rng, n, m):
    end = (
        hostile.pick(rng, hostile.HERMITIAN, n) * 10.0 ** rng.choice([0, 0, -6, 6])
        if rng.random() < 0.8
        else np.zeros((n, n))
    )
    return *_plant(rng, n, m), end


def _time(rng, options):
    return options | {"t": float(rng.choice([0.0, 0.1, 1.0, 10.0, 1e3, 1e-8]) * rng.uniform(0.5, 1))}


def _discrete_horizon(rng, n, m):
    """Now and then without weights of the inputs, the states or the end."""
    a, b, q, r, end = _finite_horizon(rng, n, m)
    q, r, end = (x * (rng.random() > 0.15) for x in (q, r, end))
    return a, b, q, r, end, 0.1 * hostile.gaussian(rng, n, m) if rng.random() < 0.2 else None


def _time_varying(rng, n, m):
    steps = [_discrete_horizon(rng, n, m) for _ in range(rng.integers(1, 4))]
    a, b, q, r, end, _ = zip(*steps, strict=True)
    return *map(np.stack, (a, b, q, r)), end[-1]


def _steps(rng, options):
    return options | {"steps": int(rng.choice([0, 1, 2, 5, 15]))}


def _are_or_g(rng, n, m):
    """Now and then with g in place of b and r."""
    a, b, q, r, e, s = _are(rng, n, m)
    if rng.random() < 0.7:
        return a, b, q, r, e, s, None
    g = b @ b.T * float(rng.choice([1.0, -0.01])) if rng.random() < 0.6 else hostile.gaussian(rng, n)
    return a, None, q, None, e, None, (g + g.T) / 2


def _are_from_estimate(rng, n, m):
    return *_are_or_g(rng, n, m), None if rng.random() < 0.7 else np.eye(n) * hostile.gaussian(rng, 1)


def _lqr(rng, n, m):
    a, b, q, r, e, s = _are(rng, n, m)
    return a, b, q, r, s, e


def _noisy(rng, n, m):
    a, c, _, rn, _, _ = _are(rng, n, m)
    w = int(rng.integers(1, max(n, 1) + 1))
    g, root = hostile.rectangular(rng, n, w), hostile.gaussian(rng, w, w + m)
    if rng.random() < 0.5:
        return a, g, c.T, root @ root.T, rn, None
    joint = np.vstack([root, hostile.gaussian(rng, m, w + m)])
    joint = joint @ joint.T
    return a, g, c.T, joint[:w, :w], joint[w:, w:], joint[:w, w:]


def _without(f, *names):
    """A reference that does not know these options, because the answer does not depend on them."""
    return lambda *arrays, **options: f(*arrays, **{k: v for k, v in options.items() if k not in names})


def _exact_only(f):
    """No reference where a tolerance, a schedule or steps ask for less than the exact answer."""

    def reference(*arrays, **options):
        if any(options.get(k) is not None for k in ("tol", "schedule", "steps", "precision")):
            raise references.UnknownError
        return f(*arrays, **{k: v for k, v in options.items() if k not in ("method", "tol", "rank")})

    return reference


def _gramian_of(value, *arrays):
    (z,) = value
    e = truth.exact(z)
    return (e @ truth.adjoint(e),)


def _first_of(value, *arrays):
    return (value[0],)


def _gain_and_solution(value, *arrays):
    return tuple(value[:2])


def _which_gain(rng, options):
    if rng.random() < 0.5:
        options["gain"] = "filter"
    return options


def _balanced(rng, options):
    if rng.random() < 0.1:
        options["balanced"] = False
    return options


SIGN = _options(_methods("newton", "polynomial", "schur", "eigh", share=0.6), _rtol, _tol)
POLAR = _options(_methods("polynomial", "newton", "svd", "gram"), _rtol, _tol)
ROOT = _options(_methods("newton", "polynomial", "schur", "eigh", share=0.6), _rtol)
POWERS = (_methods("newton", "eigh", "schur", share=0.6), _rtol)
INVERSE_ROOTS = (_methods("polynomial", "newton", "eigh", "schur", share=0.6), _rtol, _tol, _order)
ARE = (_methods("doubling", "sign", "qz", share=0.7), _balanced)
CARE, DARE = (_options(*ARE, _other_side(*side)) for side in (("half_plane", "right"), ("circle", "outside")))
CLIP = _methods("svd", "sign")
PLAIN = _options()

SUBJECTS = [
    Subject("msign", _rectangular, _options(_methods("polynomial", "newton", "svd", "gram"), _rtol, _schedules),
            _exact_only(_one(references.msign)), ((1,), (0,))),
    Subject("polar", _rectangular, POLAR, _exact_only(references.polar), ((1,), (0, 1))),
    Subject("warm_msign", _moving, _options(_rtol, _tol), _exact_only(lambda m, state=None, **o: (references.msign(m, **o),)),
            ((1, 0), (0, 0)), lambda value, *arrays: value[:1]),
    Subject("stiefel_step", _weight_and_gradient, _options(_gap), references.stiefel_step, ((0, 1), (0, 0)), _first_of),
    Subject("spectral_sphere_step", _any_weight, _options(_gap), references.sphere_step, ((1, 1), (0, 0)), _first_of),
    Subject("nearest_rotation", _rotated, _options(_rtol), _exact_only(_one(references.nearest_rotation)), ((1,), (0,))),
    Subject("procrustes", _points, _options(_rtol), references.procrustes, ((1, 1), (0, 2))),
    Subject("kabsch", _weighted_points, _options(_rtol), _one(references.kabsch), ((1, 1, 0), (0, 1, 1)),
            lambda value, *arrays: value[:1]),
    Subject("bures_distance", _covariances, _options(_rtol, _squared), _one(references.bures_distance)),
    Subject("fidelity", _covariances, _options(_rtol, _squared), _one(references.fidelity)),
    Subject("karcher_mean", _collection, PLAIN, _one(references.karcher_mean), ((1, 0), (1,))),
    Subject("bures_mean", _collection, _options(_rtol), _one(references.bures_mean), ((1, 0), (1,))),
    Subject("frechet_distance", _gaussians, _options(_rtol), _one(references.frechet_distance), ((1, 2, 1, 2), (2,))),
    Subject("bures_distance_of_factors", _factors, _options(_squared), _one(references.bures_distance_of_factors)),
    Subject("fidelity_of_factors", _factors, _options(_squared), _one(references.fidelity_of_factors)),
    Subject("frechet_distance_of_samples", _samples, PLAIN, _one(references.frechet_distance_of_samples), ((1, 1), (2,))),
    Subject("riemannian_distance", _definite_pair, _options(_squared), _one(references.riemannian_distance),
            ((1, 1), (0,))),
    Subject("mcsgn", _square, SIGN, _exact_only(_one(references.sign)), ((1,), (0,))),
    Subject("spectral_projector", _pencil, _options(lambda rng, o: o | SIGN(rng), _half_plane, _line),
            _exact_only(_one(references.projector)), ((1, 0), (0,))),
    Subject("fermi_occupation", _hamiltonian, _options(_methods("eigh", "polynomial"), _filling), references.fermi),
    Subject("matrix_abs", _square, SIGN, _exact_only(_one(references.absolute)), ((1,), (1,))),
    Subject("mclip", _rectangular, _options(CLIP, _rtol, _clip), _exact_only(_one(references.mclip))),
    Subject("soft_threshold", _rectangular, _options(CLIP, _threshold), _exact_only(_one(references.soft_threshold))),
    Subject("warm_mclip", _leading, _options(_upper, _tol, _rank),
            _exact_only(lambda m, state=None, **o: (references.mclip(m, **o),)), compared=lambda value, *arrays: value[:1]),
    Subject("warm_soft_threshold", _leading, _options(_threshold, _tol, _rank),
            _exact_only(lambda m, state=None, **o: (references.soft_threshold(m, **o),)),
            compared=lambda value, *arrays: value[:1]),
    Subject("warm_svd", _two_leading, _options(lambda rng, o: o | {"k": int(rng.integers(1, 3))}, _tol),
            _exact_only(references.best_approximation), compared=_best_approximation),
    Subject("psd_project", _square, _options(_methods("eigh", "sign")), _exact_only(_one(references.psd_project)),
            ((1,), (1,))),
    Subject("sqrtm", _roots, ROOT, _exact_only(lambda a, **o: references.root_pair(a, **o)[:1]), ((2,), (1,))),
    Subject("invsqrtm", _roots, ROOT, _exact_only(lambda a, **o: references.root_pair(a, **o)[1:]), ((2,), (-1,))),
    Subject("sqrtm_pair", _roots, ROOT, _exact_only(references.root_pair), ((2,), (1, -1))),
    Subject("rootm", _roots, _options(*POWERS, _order), _exact_only(lambda a, p, **o: (references.power(a, 1, p, **o),))),
    Subject("invrootm", _roots, _options(*INVERSE_ROOTS), _exact_only(lambda a, p, **o: (references.power(a, -1, p, **o),))),
    Subject("invroot_product", _product, _options(*INVERSE_ROOTS, lambda rng, o: o | {"s": int(rng.integers(1, 4))}),
            _exact_only(lambda g, a, p, s, **o: (truth.exact(g) @ references.power(a, -s, p, **o),))),
    Subject("fractional_matrix_power", _roots, _options(*POWERS, _exponent),
            _exact_only(lambda a, t, **o: (references.power(a, t, **o),))),
    Subject("logm", _roots, _options(*POWERS), _exact_only(_one(references.logarithm))),
    Subject("coupled_root", _pairs, _options(_rtol), references.coupled_root, ((1, -1), (1, -1))),
    Subject("geometric_mean", _pairs, _options(_rtol, _weight), _one(references.geometric_mean), ((1, 1), (1,))),
    Subject("solve_sylvester", _sylvester, _options(_methods("newton", "schur", "divide", "eigenvectors", share=0.6)),
            _exact_only(_one(references.sylvester)), ((1, 1, 0), (-1,))),
    Subject("solve_continuous_lyapunov", _with_descriptor(_lyapunov),
            _options(_methods("doubling", "newton", "schur", share=0.6)),
            _exact_only(_one(references.lyapunov)), ((1, 0, 0), (-1,))),
    Subject("solve_discrete_lyapunov", _with_descriptor(_stein),
            _options(_methods("doubling", "schur", "direct", "bilinear", None, share=0.6)),
            _exact_only(_one(references.stein)), ((0, 1, 0), (1,))),
    Subject("solve_discrete_sylvester", _discrete_sylvester, _options(_methods("doubling", "schur", share=0.6)),
            _exact_only(_one(references.discrete_sylvester)), ((0, 0, 1), (1,))),
    Subject("solve_generalized_sylvester", _generalized_sylvester, _options(_methods("standard", "qz", share=0.6)),
            _exact_only(_one(references.generalized_sylvester)), ((0, 0, 0, 0, 1), (1,))),
    Subject("solve_sylvester_pair", _sylvester_pair, _options(_methods("standard", "qz", share=0.6)),
            _exact_only(references.sylvester_pair), ((0, 0, 1, 0, 0, 1), (1, 1))),
    Subject("lyapunov_factor", _with_descriptor(_factor), PLAIN, _one(references.stable_gramian), ((0, 1, 0), (1,)),
            _gramian_of),
    Subject("discrete_lyapunov_factor", _with_descriptor(_discrete_factor), PLAIN,
            _one(partial(references.stable_gramian, discrete=True)), ((0, 1, 0), (1,)), _gramian_of),
    Subject("riccati_factor", _riccati_model, PLAIN, _one(references.riccati_factor), ((0, -1, 1), (1,)), _gramian_of),
    Subject("gramian", _with_descriptor(_factor), PLAIN, _one(references.stable_gramian), ((0, 1, 0), (2,))),
    Subject("discrete_gramian", _with_descriptor(_discrete_factor), PLAIN,
            _one(partial(references.stable_gramian, discrete=True)), ((0, 1, 0), (2,))),
    Subject("h2_norm", _with_descriptor(_model), PLAIN, _one(references.h2_norm), ((0, 1, 0, 0), (1,))),
    Subject("discrete_h2_norm", _with_descriptor(_discrete_model), PLAIN, _one(references.discrete_h2_norm),
            ((0, 1, 0, 1, 0), (1,))),
    Subject("hinf_norm", _with_descriptor(_model_with_d), PLAIN, _one(references.hinf_norm), None, _first_of),
    Subject("discrete_hinf_norm", _with_descriptor(_discrete_model), PLAIN,
            _one(partial(references.hinf_norm, discrete=True)), None, _first_of),
    Subject("lqg_balanced_truncation", _unstable_model, lambda rng: {"order": 1},
            _without(_one(references.riccati_values), "order"), None, _values),
    Subject("bounded_real_balanced_truncation", _model_with_d, lambda rng: {"order": 1} | _bound(rng),
            _without(_one(references.bounded_real_values), "order"), None, _values),
    Subject("minimal_realization", _redundant, _options(_rtol, _largest_order), references.transfer_function, None,
            _transfer_function),
    Subject("hankel_singular_values", _with_descriptor(_any_model), _options(_sampling_time), _finite(references.hankel),
            ((0, 1, 0, 0), (1,)), lambda value, *arrays: (_finite_part(value[0]),)),
    Subject("balanced_truncation", _with_descriptor(_any_model_with_d), _options(_sampling_time, _order_or_tol),
            _without(_finite(references.hankel_of_model), "tol", "method"), None,
            lambda value, *arrays: (_finite_part(value[4]),)),
    Subject("solve_riccati", _riccati, _options(_methods("newton", "schur", "doubling", share=0.6), _half_plane),
            _exact_only(_one(references.riccati)), ((1, 1, 1, 1), (0,))),
    Subject("solve_differential_riccati", _finite_horizon, _options(_time), _one(references.horizon), ((0, 0, 1, 1, 1), (1,))),
    Subject("lqr_finite_horizon", _plant, _options(_time), references.finite_regulator, ((0, 0, 1, 1), (0, 1))),
    Subject("solve_continuous_are", _are_from_estimate, CARE,
            _without(_one(partial(references.are, False)), "method", "balanced"), ((0, 0, 1, 1, 0, 1, -1, 1), (1,))),
    Subject("dlqr_finite_horizon", _discrete_horizon, _options(_steps), references.discrete_horizon,
            ((0, 0, 1, 1, 1, 1), (0, 1))),
    Subject("dlqr_time_varying", _time_varying, PLAIN, references.time_varying, ((0, 0, 1, 1, 1), (0, 1))),
    Subject("extremal_solutions", _are_or_g, PLAIN, references.extremal, ((0, 0, 1, 1, 0, 1, -1), (1, 1))),
    Subject("discrete_extremal_solutions", _are_or_g, PLAIN, references.discrete_extremal, ((0, 0, 1, 1, 0, 1, -1), (1, 1))),
    Subject("solve_discrete_are", _are_from_estimate, DARE, _without(_one(partial(references.are, True)), "method", "balanced"),
            ((0, 0, 1, 1, 0, 1, -1, 1), (1,))),
    Subject("lqr", _lqr, _options(_methods("doubling", "sign", "qz", share=0.7)),
            _without(partial(references.regulator, False), "method"), None, _gain_and_solution),
    Subject("dlqr", _lqr, _options(_methods("doubling", "sign", "qz", share=0.7)),
            _without(partial(references.regulator, True), "method"), None, _gain_and_solution),
    Subject("lqe", _noisy, _options(_methods("doubling", "sign", "qz", share=0.7)),
            _without(partial(references.estimator, False), "method"), None, _gain_and_solution),
    Subject("dlqe", _noisy, _options(_methods("doubling", "sign", "qz", share=0.7), _which_gain),
            _without(partial(references.estimator, True), "method"), None, _gain_and_solution),
]  # fmt: skip
BY_NAME = {s.name: s for s in SUBJECTS}


def draw(seed, subject=None, sizes=hostile.SIZES, dtype=None):
    """The case of a seed: always the same one."""
    rng = np.random.default_rng(seed)
    subject = subject or SUBJECTS[rng.integers(len(SUBJECTS))]
    dtype = dtype or str(rng.choice(DTYPES))
    if subject.f.spec.parameters.real_only:
        dtype = REAL.get(dtype, dtype)
    n, m = (int(rng.choice(sizes)) for _ in range(2))
    if rng.random() < 0.01:
        n = 0
    if rng.random() < 0.01:
        m = 0
    options = subject.options(rng)
    return Case(subject, arguments(rng, subject, n, m, dtype), options), rng


def arguments(rng, subject, n, m, dtype):
    """Arrays of one case: hostile, now and then all at the edge of what the dtype holds."""
    kind = np.dtype(dtype).kind
    with np.errstate(all="ignore"):
        names = subject.f.spec.parameters.arrays
        arrays = [
            x if x is None or name == "weights" else hostile.rotated(rng, x, kind)
            for name, x in zip(names, subject.arguments(rng, n, m), strict=False)
        ]
        if rng.random() < 0.15:
            scale = float(rng.choice(hostile.SCALES))
            powers = subject.scales[0] if subject.scales and rng.random() < 0.7 else [1] * len(arrays)
            root = max(map(abs, powers))
            arrays = [None if x is None else x * scale ** (p / root) for x, p in zip(arrays, powers, strict=False)]
        return tuple(None if x is None else hostile.cast(x, dtype) for x in arrays)
