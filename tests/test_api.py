"""The public names, the modules that an import loads, and the direction of imports."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import matsign

SOURCE = Path(matsign.__file__).parent

API = {
    "ManifoldStep",
    "spectral_sphere_step",
    "stiefel_step",
    "Alignment",
    "Certificate",
    "Procrustes",
    "Estimator",
    "FiniteHorizonRegulator",
    "Occupation",
    "Polar",
    "Realization",
    "Reduced",
    "Regulator",
    "SpectrumError",
    "balanced_truncation",
    "bounded_real_balanced_truncation",
    "lqg_balanced_truncation",
    "BalancedModel",
    "certify",
    "condition",
    "coupled_root",
    "discrete_extremal_solutions",
    "discrete_gramian",
    "discrete_h2_norm",
    "discrete_hinf_norm",
    "discrete_lyapunov_factor",
    "dlqe",
    "dlqr",
    "dlqr_finite_horizon",
    "dlqr_time_varying",
    "each",
    "extremal_solutions",
    "fractional_matrix_power",
    "frechet",
    "geometric_mean",
    "gramian",
    "h2_norm",
    "hankel_singular_values",
    "hinf_norm",
    "invroot_product",
    "invrootm",
    "invsqrtm",
    "logm",
    "lqe",
    "lqr",
    "lqr_finite_horizon",
    "lyapunov_factor",
    "matrix_abs",
    "mclip",
    "minimal_realization",
    "mcsgn",
    "bures_distance",
    "bures_mean",
    "fermi_occupation",
    "fidelity",
    "frechet_distance",
    "riemannian_distance",
    "bures_distance_of_factors",
    "fidelity_of_factors",
    "frechet_distance_of_samples",
    "kabsch",
    "karcher_mean",
    "msign",
    "procrustes",
    "warm_mclip",
    "warm_msign",
    "warm_soft_threshold",
    "warm_svd",
    "LeadingSVD",
    "WarmResult",
    "nearest_rotation",
    "polar",
    "psd_project",
    "riccati_factor",
    "rootm",
    "soft_threshold",
    "solve_continuous_are",
    "solve_continuous_lyapunov",
    "solve_differential_riccati",
    "solve_discrete_are",
    "solve_discrete_lyapunov",
    "solve_discrete_sylvester",
    "solve_generalized_sylvester",
    "solve_riccati",
    "solve_sylvester",
    "solve_sylvester_pair",
    "spectral_projector",
    "sqrtm",
    "sqrtm_pair",
}


def test_all_is_the_documented_api():
    assert set(matsign.__all__) == API
    assert matsign.__all__ == sorted(matsign.__all__)
    public = {n for n, v in vars(matsign).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert public == API


@pytest.mark.parametrize("name", sorted(API))
def test_documented_with_an_example(name):
    thing = getattr(matsign, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        assert ">>> " in thing.__doc__
        assert thing.__name__ == name


@pytest.mark.parametrize("name", sorted(n for n in API if hasattr(getattr(matsign, n), "spec")))
def test_options_are_keyword_only_and_documented(name):
    f = getattr(matsign, name)
    # Optional arrays, and arguments that SciPy takes by position, may be positional.
    placed = {p.name for p in inspect.signature(f).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD}
    for parameter in inspect.signature(f).parameters.values():
        if parameter.default is not parameter.empty and parameter.name not in placed:
            assert parameter.kind is parameter.KEYWORD_ONLY
            documented = f.__doc__ + matsign.sqrtm_pair.__doc__ + matsign.mcsgn.__doc__ + matsign.msign.__doc__
            assert parameter.name in documented
    assert f.__kwdefaults__["errors"] == "raise" if hasattr(f, "__kwdefaults__") and f.__kwdefaults__ else True


def run(code, **environment):
    import os

    env = {**os.environ, "PYTHONPATH": str(SOURCE.parent), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_and_calling_with_numpy_imports_no_other_library():
    loaded = run(
        "import sys, numpy, matsign; matsign.certify(matsign.mcsgn)([[1.0, 2], [0, -1]]);"
        "print(*(m for m in sys.modules if m.partition('.')[0] in\n"
        "      ('torch', 'jax', 'jaxlib', 'dask', 'xarray', 'matplotlib', 'typer', 'rich')))"
    )
    assert loaded == []


def test_importing_loads_only_what_is_needed():
    """No plotting, no command line, and of SciPy only its linear algebra."""
    loaded = run(
        "import sys, matsign; print(*sorted(m for m in sys.modules if m.startswith('scipy.') and m.count('.') == 1))"
    )
    assert not {"scipy.stats", "scipy.optimize", "scipy.signal", "scipy.integrate"} & set(loaded)


@pytest.mark.compiles
def test_single_precision_jax():
    """Without x64, JAX's default: float32 in and out, no warning, no setting changed."""
    pytest.importorskip("jax")
    out = run(
        "import warnings; warnings.simplefilter('error')\n"
        "import numpy as np, jax, jax.numpy as jnp, matsign\n"
        "m = jnp.asarray(np.array([[4.0, 3.0], [0.0, -2.0]], 'float32'))\n"
        "a, q = jnp.asarray([[2.0, 1], [0, 3]]), jnp.ones((2, 2))\n"
        "for value in (matsign.mcsgn(m), jax.jit(matsign.mcsgn)(m), matsign.msign(m), matsign.sqrtm(a),\n"
        "              matsign.solve_sylvester(a, a, q), matsign.solve_riccati(-a, a, q, 0.1 * q),\n"
        "              matsign.mcsgn(jnp.asarray([[4, 3], [0, -2]])), matsign.geometric_mean(a @ a.T, a.T @ a)):\n"
        "    assert value.dtype == 'float32', value.dtype\n"
        "    assert bool(jnp.isfinite(value).all())\n"
        "s = np.asarray(matsign.mcsgn(m)); assert np.abs(s - [[1, 1], [0, -1]]).max() < 1e-6, s\n"
        "_, c = matsign.certify(matsign.mcsgn)(m); assert c.converged and c.backward_error < 1e-6\n"
        "assert not jax.config.jax_enable_x64; print('done')",
        JAX_ENABLE_X64="0",
    )
    assert out == ["done"]


LAYERS = [
    "backends",
    "linalg",
    "core",
    ("direct", "iterations"),
    ("functions", "equations"),
    "optim",
    ("planning", "plugins"),
    "cli",
]


def layer(module):
    part = module.split(".")[1] if module.count(".") else ""
    for k, names in enumerate(LAYERS):
        if part in (names if isinstance(names, tuple) else (names,)):
            return k
    return None


def imports(path, nested=True):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{path}: a relative import hides where it points")


def test_imports_point_down():
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    found = [(path, module) for path in files for module in imports(path)]
    for path, module in found:
        own = layer("matsign." + ".".join(path.relative_to(SOURCE).with_suffix("").parts))
        root = module.partition(".")[0]
        if root in ("torch", "jax", "jaxlib"):
            assert path.parent.name in ("backends", "optim"), f"{path.name} imports {module}"
        if root in ("control", "pymor"):
            assert path.parent.name == "plugins", f"{path.name} imports {module}"
        if root in ("dask", "xarray"):
            assert path.parent.name == "backends", f"{path.name} imports {module}"
        if root == "matsign" and own is not None and layer(module) is not None:
            assert layer(module) <= own, f"{path.name} imports {module}"


def folder(module):
    """The folder of a module of matsign, from its dotted name."""
    path = SOURCE.joinpath(*module.split(".")[1:])
    while not path.is_dir():
        path = path.parent
    return str(path.relative_to(SOURCE))


def test_no_circle_of_folders():
    needs = {}
    for path in SOURCE.rglob("*.py"):
        if path.parent != SOURCE:
            here = needs.setdefault(str(path.parent.relative_to(SOURCE)), set())
            here |= {folder(m) for m in imports(path) if m.startswith("matsign.")} - {
                ".",
                str(path.parent.relative_to(SOURCE)),
            }
    while ready := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in ready:
            del needs[name]
    assert needs == {}


def test_no_circle_of_modules():
    needs = {}
    for path in SOURCE.rglob("*.py"):
        if path.name != "__init__.py":
            found = [m.split(".")[1:] for m in imports(path, nested=False) if m.startswith("matsign.")]
            files = {SOURCE.joinpath(*m[:k]).with_suffix(".py") for m in found for k in (len(m) - 1, len(m)) if k}
            needs[path] = {f for f in files if f.exists()} - {path}
    while ready := [path for path, others in needs.items() if not others & needs.keys()]:
        for path in ready:
            del needs[path]
    assert not needs, {str(k): [str(f) for f in v & needs.keys()] for k, v in needs.items()}


def test_version():
    assert matsign.__version__.count(".") == 2


def test_spectrum_error_is_a_linalg_error():
    assert issubclass(matsign.SpectrumError, np.linalg.LinAlgError)


def page(name):
    path = SOURCE.parents[1] / name
    if not path.exists():
        pytest.skip("not a checkout")
    return path.read_text(encoding="utf-8")


def names_missing_in(text, names):
    return [n for n in sorted(names) if not re.search(rf"\b{n}\b", text)]


def test_the_readme_names_every_function():
    functions = (n for n in API if hasattr(getattr(matsign, n), "spec"))
    assert names_missing_in(page("README.md"), functions) == []


def test_the_reference_has_a_page_for_every_public_name():
    """Sphinx makes a page of every line of a table."""
    lines = re.findall(r"^   (\w+)$", page("docs/reference/functions.rst"), re.MULTILINE)
    assert len(lines) == len(set(lines))
    assert names_missing_in("\n".join(lines), API | set(matsign.optim.__all__)) == []
