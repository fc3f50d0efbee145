# The verbs of this project; a bare `make` lists them. A fresh machine needs python3 (3.11 or newer, with venv) and make.
#
#   make venv PYTHON=python3.12     another Python
#   make venv CONSTRAINTS=          the newest versions that pyproject.toml allows, instead of the tested ones
#   make venv CONSTRAINTS=my.txt    pins of your own, for instance another build of torch

PYTHON      ?= python3
CONSTRAINTS ?= constraints.txt
VENV        := .venv
BIN         := $(VENV)/bin
PIP         := $(BIN)/python -m pip --disable-pip-version-check
READY       := $(VENV)/ready
PINS        := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: help venv sweep test test-cluster test-slow check bench ui docs clean
.DELETE_ON_ERROR:

help:  ## list the verbs
	@echo "make VERB, where VERB is"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(READY)  ## make the environment in .venv (about a minute and a half, downloads apart)

# Four steps, because one `pip install` takes half as long again (CONTRIBUTING.md, "The environment"): a pip that is
# quick, every pinned package without asking the resolver, what the pins leave out (a GPU's libraries) and the project,
# and bytecode on all cores instead of pip's one.
$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile --upgrade $(PINS) pip setuptools
	$(if $(CONSTRAINTS),$(PIP) install --quiet --no-compile --no-deps --requirement $(CONSTRAINTS))
	PYTHONWARNINGS=ignore $(PIP) install --quiet --no-compile --no-build-isolation $(PINS) --editable '.[dev]'
	-@$(BIN)/python -m compileall -qq -j 0 -x '[/\\](tests?|testing|rllib|sklearn|databricks)[/\\]' $(VENV)/lib
	@$(MAKE) --no-print-directory .warn-compiler
	@touch $@

# torch.compile writes C++ and builds it on the spot. Without a compiler all works, uncompiled and many times slower.
.PHONY: .warn-compiler
.warn-compiler:
	@command -v $${CXX:-g++} >/dev/null || command -v clang++ >/dev/null || \
	  echo "warning: no C++ compiler (g++ or clang++), so training runs uncompiled, many times slower." \
	       "Debian, Ubuntu: apt-get install g++"
	@test -f "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
	  echo "warning: no Python.h, so training runs uncompiled, many times slower." \
	       "Debian, Ubuntu: apt-get install python3-dev"

sweep: venv  ## run the quickstart sweep (about four minutes on two cores)
	$(BIN)/sweeps run quickstart

# Three tiers of tests (CONTRIBUTING.md, "Tests"). Which tests share a process: tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

test: check  ## lint, types, import rules, and the tests that decide whether a change is accepted (under 8 minutes)
	$(PYTEST) -m "not slow and not cluster"

test-cluster: venv  ## real Slurm, three Ray nodes, Kubernetes and launcher checks
	$(PYTEST) -m "cluster and not slow"

test-slow: venv  ## every unit and network compiled, long training
	$(PYTEST) -m slow

check: venv  ## lint, types and import rules only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv  ## measure the engine against a plain PyTorch loop
	$(BIN)/sweeps bench

ui: venv  ## open MLflow's pages on what has been swept
	$(BIN)/sweeps ui

docs: venv  ## print the models, tasks and ready sweeps that exist
	$(BIN)/sweeps list models
	$(BIN)/sweeps list tasks
	$(BIN)/sweeps list definitions

clean:  ## remove the environment and all caches; results/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
