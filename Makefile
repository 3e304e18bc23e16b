# `make run` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check check-fast static format lint imports types compiled tests unit-tests lock clean

run: $(VENV)/.run
	@$(BIN)/python -m bot.supervisor

test: check

# Everything that a reviewer runs.
check: static tests

# The same with the unit tests only: no server, no database, no process of its own.
# The type checker uses one core, hence beside them.
check-fast: format lint imports
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types unit-tests

# While the type checker uses one core, another one compiles the tests, once for all processes that run them.
static: format lint imports
	@$(MAKE) --no-print-directory --jobs=2 types compiled

format: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

imports: $(VENV)/.dev
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/basedpyright

# A module that cannot be imported is reported by the tests themselves.
compiled: export PYTHONDONTWRITEBYTECODE =
compiled: $(VENV)/.dev
	@$(BIN)/python -m pytest --numprocesses=0 --collect-only -qq -p no:cacheprovider >/dev/null 2>&1 || true

tests: $(VENV)/.dev
	$(BIN)/python -m pytest

unit-tests: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not integration" tests/core tests/services tests/bot tests/deploy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Understudy needs Python 3.11 or newer: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock | $(VENV)/bin/python
	@$(BIN)/python deploy/install.py requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(VENV)/bin/python
	@$(BIN)/python deploy/install.py requirements-dev.lock
	@touch $@ $(VENV)/.run

# After a change of the dependencies in pyproject.toml. The lock files hold names, versions and hashes only.
lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-strip-extras pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-strip-extras --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
