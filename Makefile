# Two commands on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY := true
export BENTOML_DO_NOT_TRACK := True
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help install demo test check test-slow test-public lock clean

help:
	@echo "make demo         train, track, choose, package, serve and score on the shipped corpora"
	@echo "make test         check the code and run the tests"
	@echo "make check        only ruff, mypy and the room order"
	@echo "make test-slow    the tests that take minutes"
	@echo "make test-public  the tests on public sets (AFTERSALES_PUBLIC_DATA)"
	@echo "make lock         write requirements.lock anew from the newest allowed versions"
	@echo "make clean        remove all that commands produced (runs, champions, Bentos), not the environment"

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

demo: install
	$(BIN)/aftersales demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

test-public: install
	$(BIN)/python -m pytest -m public

lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet -e '.[dev]'
	.venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
