# Every command sets up what it needs in .venv/ first, from nothing, and again only when the requirements change.

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
# Test processes. Each computes on one core, so that two of them do not fight over two.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

##@ Start here

.PHONY: demo
demo: $(READY) ## check, explain, compile and verify the examples, then train a small model
	@$(BIN)/python examples/demo.py

.PHONY: test
test: check ## lint, types and every test but the slow sweeps; what CI runs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

##@ While working

.PHONY: check
check: lint typecheck ## lint and types, no tests; what pre-commit runs

.PHONY: lint
lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(READY) ## rewrite the sources in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: grammar
grammar: $(READY) ## recompute the parser's tables after a change of attn.lark
	@$(BIN)/python -m attncc.grammar.tables

.PHONY: typecheck
typecheck: $(READY) ## mypy, strict, over the package
	@$(BIN)/mypy

.PHONY: test-all
test-all: check ## as test, with the slow sweeps
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --timeout 3600

.PHONY: hooks
hooks: $(READY) ## run `check` before every commit
	@$(BIN)/pre-commit install

##@ Housekeeping

.PHONY: setup
setup: $(READY) ## only set up .venv/

.PHONY: clean
clean: ## remove what builds, tests and tools leave behind; .venv/ stays
	@rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find attncc examples tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean ## remove .venv/ too
	@rm -rf $(VENV)

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# torch goes first and alone: a plain version takes the CPU build where the package index offers one, and what
# comes after finds it there.
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "attncc needs Python 3.10 or later; say which with: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up $(VENV)/"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements-dev.txt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
