# The one developer interface: people and CI run the same targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# The first interpreter on the path that is new enough; `make setup PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$name; break; }; done)
# Options for the installation of PyTorch alone, for example to choose its CPU or ROCm build (CONTRIBUTING.md).
TORCH_OPTIONS ?=
# Options for pytest: `make test ARGS="tests/traces -x"`; `-n 0` runs everything in one process.
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --constraint constraints.txt

.PHONY: help setup demo test check docs typing bench clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed typing ## Install Marple and its development tools into .venv

demo: .venv/.demo ## Investigate a model organism and its clean twin, offline, on the CPU
	@$(BIN)/marple demo

test: setup ## Run the tests
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n auto --dist loadfile $(ARGS)

# import-linter looks in the working directory first and follows no links, so it gets a copy to stand in.
check: setup ## Check style, types, the floors and the documents' links; builds the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks
	@rm -rf build/imports && mkdir -p build && cp -pRL .typing build/imports
	cd build/imports/ && ../../$(BIN)/lint-imports --config ../../pyproject.toml
	$(BIN)/pytest -q tests/repository/test_documents.py
	@$(MAKE) docs

docs: setup ## Build the documentation site into build/site; a broken link or anchor fails it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "To read it: $(BIN)/python -m http.server --directory build/site"

bench: setup ## Measure the performance table, with other libraries beside where they are installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove everything that was made here, the environment included; runs/ stays
	rm -rf .venv .typing build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What a user needs. PyTorch first and alone, so that its build can be chosen.
.venv/.demo: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Marple needs Python 3.11 or newer; found $$(python3 --version 2>&1)." \
		"Install one, or name it: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv || \
		{ echo "Could not make .venv; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf .venv; exit 1; }; }
	@echo "Installing PyTorch (a large download the first time)"
	@$(PIP) $(TORCH_OPTIONS) torch
	@echo "Installing Marple and what it needs (about a minute)"
	@$(PIP) -qq --editable .
	@touch $@

# What a developer needs beside it.
.venv/.installed: .venv/.demo
	@echo "Installing the development tools"
	@$(PIP) -qq --editable '.[dev]'
	@touch $@

# mypy and editors follow these links: the folders agent/, tools/, ... as the package marple.
typing:
	@mkdir -p .typing/marple
	@for path in marple/[!_]* marple/__init__.py agent sandboxes tasks tools traces; do \
		ln -sfn ../../$$path .typing/marple/$${path##*/}; done
	@find .typing -xtype l -delete
