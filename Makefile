PYTHON ?= python3

.PHONY: tour test fuzz lint types docs clean

# The main job, on NumPy and SciPy alone.
tour: .venv/tour
	.venv/tour/bin/matsign tour

# Everything: the three array libraries, the tests and the doctests.  Two workers with one thread each: more would wait for each other.
test: .venv/test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv/test/bin/python -m pytest -q -n 2

# Every function on hostile input for an hour, against every promise; it goes on from the log of the last run.
FUZZ ?= --seconds 3600 --log .fuzz.json
fuzz: .venv/test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONPATH=src:tests .venv/test/bin/python -m fuzz $(FUZZ)

lint: .venv/test
	.venv/test/bin/ruff check .
	.venv/test/bin/ruff format --check .

types: .venv/test
	.venv/test/bin/mypy

docs: .venv/test
	.venv/test/bin/python -m pip install -q --group docs
	.venv/test/bin/sphinx-build -q -W docs docs/_build

.venv/tour: pyproject.toml
	$(PYTHON) -m venv .venv/tour
	.venv/tour/bin/python -m pip install -q --upgrade pip
	.venv/tour/bin/python -m pip install -q -e .
	@touch .venv/tour

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv/test
	.venv/test/bin/python -m pip install -q --upgrade pip
	.venv/test/bin/python -m pip install -q -c constraints.txt torch jax
	.venv/test/bin/python -m pip install -q -c constraints.txt -e . --group dev
	@touch .venv/test

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz.json .fuzz.found
