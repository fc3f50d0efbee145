# Targets of this project; `make` without arguments lists them. Requirements: make, and Python 3.11 or newer with venv.
#
#   make venv PYTHON=python3.12     use another Python
#   make venv CONSTRAINTS=          install the newest versions that pyproject.toml allows, instead of the tested ones
#   make venv CONSTRAINTS=my.txt    install your own pins, for instance another build of torch

PYTHON      ?= python3
CONSTRAINTS ?= constraints.txt
VENV        := .venv
BIN         := $(VENV)/bin
PIP         := $(BIN)/python -m pip --disable-pip-version-check
READY       := $(VENV)/ready
PINS        := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: gpu-check help venv sweep test test-cluster test-slow test-faults check bench wheel ui docs clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@echo "make TARGET, where TARGET is"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(READY)  ## create the environment in .venv (about a minute and a half, without downloads)

# Four steps, because a single `pip install` takes 1.5 times as long (CONTRIBUTING.md, "The environment"): a newer, faster
# pip; every pinned package, without the resolver; the project and what the pins do not contain (libraries for GPUs);
# bytecode, compiled on all cores instead of pip's one.
$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is older or missing: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile --upgrade $(PINS) pip setuptools
	$(if $(CONSTRAINTS),$(PIP) install --quiet --no-compile --no-deps --requirement $(CONSTRAINTS))
	PYTHONWARNINGS=ignore $(PIP) install --quiet --no-compile --no-build-isolation $(PINS) --editable '.[dev]'
	-@$(BIN)/python -m compileall -qq -j 0 -x '[/\\](tests?|testing|rllib|sklearn|databricks)[/\\]' $(VENV)/lib
	@$(MAKE) --no-print-directory .warn-compiler
	@touch $@

# torch.compile generates C++ and compiles it at run time. Without a compiler, training runs uncompiled and many times slower.
.PHONY: .warn-compiler
.warn-compiler:
	@command -v $${CXX:-g++} >/dev/null || command -v clang++ >/dev/null || \
	  echo "warning: no C++ compiler (g++ or clang++), so training runs uncompiled, many times slower." \
	       "Debian, Ubuntu: apt-get install g++"
	@test -f "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
	  echo "warning: no Python.h, so training runs uncompiled, many times slower." \
	       "Debian, Ubuntu: apt-get install python3-dev"

sweep: venv  ## run the quickstart sweep (under a minute on two cores, the environment apart)
	$(BIN)/sweeps run quickstart

# Tests are in four tiers (CONTRIBUTING.md, "Tests"). tests/conftest.py defines which tests share a process.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

test: check  ## lint, types, import rules and the tests that a change must pass (under 8 minutes)
	$(PYTEST) -m "not slow and not cluster and not faults"

test-cluster: venv  ## real Slurm, three Ray nodes, Kubernetes and launcher checks
	$(PYTEST) -m cluster

test-slow: venv  ## every unit and network compiled, long training
	$(PYTEST) -m slow

test-faults: venv  ## one sweep killed, cut off and filled up again and again, one after another (half an hour)
	$(BIN)/python -m pytest --numprocesses 0 -m faults tests/test_faults.py

check: venv  ## lint, types and import rules only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv  ## compare the engine's speed with a plain PyTorch loop
	$(BIN)/sweeps bench

gpu-check:  ## the engine on this machine's GPU: right, and how fast (six minutes, without the virtual environment)
	python3 -m sweeps.bench.gpu_check

wheel: venv  ## build dist/sweeps-VERSION-py3-none-any.whl, which runs without this checkout
	rm -rf build
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build
	@ls dist/*.whl

ui: venv  ## open the MLflow web interface
	$(BIN)/sweeps ui

docs: venv  ## list the models, the tasks and the sweep definitions
	$(BIN)/sweeps list models
	$(BIN)/sweeps list tasks
	$(BIN)/sweeps list definitions

clean:  ## remove the environment and all caches; keep results/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
