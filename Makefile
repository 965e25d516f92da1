PYTHON ?= python3

.PHONY: tour test quick bench fuzz kernels devices lowest pythons environment smoke lint types docs package archives clean

# The tour, with NumPy and SciPy only.
tour: .venv/tour
	.venv/tour/bin/matsign tour

# All tests and doctests, with the three array libraries. Two workers with one thread each; more would wait for each other. Each worker
# starts with its half of the files, so that tests of one file share compiled code, and takes files of the other at the end.
# XLA compiles in half of the time without these optimisations; `make kernels`, `make lowest` and `make pythons` have them.
# Processes that tests start find compiled modules in __pycache__, also where PYTHONDONTWRITEBYTECODE is set.
QUICKLY = --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false
PYTEST = PYTHONDONTWRITEBYTECODE= XLA_FLAGS="$$XLA_FLAGS $(QUICKLY)" OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv/test/bin/python -m pytest -q -n 2 --dist worksteal
test: .venv/test
	$(PYTEST)

# Within a minute: the tests that need neither a compiler nor a long computation.
quick: .venv/test
	$(PYTEST) -m "not compiles and not slow" --ignore src/matsign/optim/optax.py

# Times of this machine beside SciPy, PyTorch, JAX and SLICOT: ten minutes. A stopped run continues. BENCH="--quick" takes a minute,
# BENCH=--help tells the rest.
BENCH ?=
bench: .venv/test
	PYTHONPATH=src:benchmarks .venv/test/bin/python -m bench $(BENCH)

# Tests every promise of every function on hostile input for an hour; continues from the log of the last run.
FUZZ ?= --seconds 3600 --log .fuzz.json
fuzz: .venv/test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONPATH=src:tests .venv/test/bin/python -m fuzz $(FUZZ)

# The numerical tests with other kernels of OpenBLAS, and with PyTorch and XLA limited to AVX2: by hand, a quarter of an hour for each
# kernel. OPENBLAS_CORETYPE in the environment selects one kernel. PyTorch's compiler would use cached code for other instruction
# sets, with wrong results: it gets an empty cache.
KERNELS = $(or $(OPENBLAS_CORETYPE),Haswell Zen Nehalem)
NUMERICAL = tests/linalg tests/direct tests/iterations tests/core tests/equations tests/functions tests/derivatives tests/fuzz tests/test_article.py tests/test_every_function.py
kernels: .venv/test
	@failed=; for kernel in $(KERNELS); do \
	  echo "OpenBLAS with the kernels for $$kernel, the others with AVX2:"; \
	  OPENBLAS_CORETYPE=$$kernel ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	  XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=AVX2" OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	  TORCHINDUCTOR_CACHE_DIR=$$(mktemp -d) \
	  .venv/test/bin/python -m pytest -q -n 2 --dist worksteal $(NUMERICAL) || failed="$$failed $$kernel"; \
	done; test -z "$$failed" || { echo "failed with:$$failed"; exit 1; }

# Every function with tensors on a GPU; without one, on a device that the CPU computes, which finds tensors made on the wrong device.
devices: .venv/test
	@found=$$(.venv/test/bin/python -c "import torch; print('cuda' if torch.cuda.is_available() else 'emulated')"); \
	MATSIGN_TEST_DEVICE=$$found OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv/test/bin/python -m pytest -q -n 2 tests/backends/test_gpu.py

# A few tests with the lowest versions that pyproject.toml allows, PyTorch only with TORCH=torch==2.6.0.
# STEP=environment only installs them, here and in `make pythons`.
STEP = smoke
lowest:
	$(MAKE) $(STEP) VENV=.venv/lowest PACKAGES="-c constraints-lowest.txt $(TORCH) $(LIBRARIES)" SMOKE="$(SMOKE) $(OF_LIBRARIES)"

# The same without OF_LIBRARIES, on the other installed versions of Python, with the packages of constraints.txt. `make smoke` alone
# takes the newest packages.
pythons:
	STEP=$(STEP) .ci/pythons

SMOKE = tests/test_api.py tests/test_release.py tests/test_public_api.py tests/test_readme.py tests/cli/test_commands.py tests/cli/test_arguments.py tests/cli/test_files.py \
  tests/cli/test_text.py tests/test_every_function.py::test_single_matrix_has_no_batch_axis
LIBRARIES = optax 'dask[array]' distributed xarray
OF_LIBRARIES = tests/derivatives/test_transforms.py tests/optim/test_scale_by_msign.py tests/distributed/test_dask.py tests/distributed/test_xarray.py \
  tests/distributed/test_jax_batches.py::test_no_collective_on_an_accelerator
VENV ?= .venv/smoke
WORKERS ?= 2
environment: $(VENV)

smoke: $(VENV)
	PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -p no:cacheprovider -n $(WORKERS) --dist worksteal $(SMOKE)

lint: .venv/test
	.venv/test/bin/ruff check .
	.venv/test/bin/ruff format --check .
	.venv/test/bin/python .ci/docstrings.py

types: .venv/test
	.venv/test/bin/mypy

docs: .venv/test
	.venv/test/bin/python -m pip install -q --group docs
	.venv/test/bin/sphinx-build -q -W docs docs/_build
	.venv/test/bin/python .ci/site.py docs/_build

# What axe-core finds in the built pages, in Chromium: by hand, after `make docs`; five minutes. CHROMIUM= names another program.
AXE = .venv/axe/node_modules/axe-core/axe.min.js
accessibility: .venv/test $(AXE)
	.venv/test/bin/python .ci/accessibility.py docs/_build $(AXE) $(CHROMIUM)

$(AXE):
	@command -v npm > /dev/null || { echo "make accessibility needs Chromium and npm (of Node.js), and npm is missing"; exit 1; }
	npm install --silent --no-audit --no-fund --prefix .venv/axe axe-core@4.14.1

# The wheel and the source archive in dist/, with the checks of their files and metadata; `make package` also tries both in new
# environments, which takes some minutes.
archives package: .venv/release
	.ci/package $@

.venv/release: Makefile
	$(PYTHON) -m venv .venv/release
	.venv/release/bin/python -m pip install -q --upgrade pip build twine cffconvert
	@touch .venv/release

.venv/tour: pyproject.toml
	$(PYTHON) -m venv .venv/tour
	.venv/tour/bin/python -m pip install -q --upgrade pip
	.venv/tour/bin/python -m pip install -q -e .
	@touch .venv/tour

# Without --no-compile pip compiles all modules, one after the other, for a minute; a fifth of them is ever imported.
.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv/test
	.venv/test/bin/python -m pip install -q --upgrade pip
	.venv/test/bin/python -m pip install -q --no-compile -c constraints.txt torch jax
	.venv/test/bin/python -m pip install -q --no-compile -c constraints.txt -e . --group dev
	@touch .venv/test

.venv/lowest .venv/python3.12 .venv/python3.13 .venv/smoke: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install -q --no-compile $(PACKAGES) -e . jax pytest pytest-xdist hypothesis mpmath python-flint
	@touch $@

clean:
	rm -rf .venv build dist docs/_build docs/reference/api .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz.json .fuzz.found
