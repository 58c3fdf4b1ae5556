# Every target makes .venv where it is missing and makes it anew when the dependencies changed.
SHELL := bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
# The first Python of at least 3.11 that runs; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format check docs linkcheck dist sbom clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(STAMP) ## Set up and run three stages on real cells; results in demo/
	$(BIN)/canal demo --out demo

test: $(STAMP) ## Set up and run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: $(STAMP) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

check: lint test ## Everything that must pass before a commit

docs: $(STAMP).docs ## Build the documentation site and run its tutorials: docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/check_site.py docs/_build/html

linkcheck: $(STAMP).docs ## Ask every address that the documentation names; needs the network
	CANAL_DOCS_EXECUTE=off $(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/linkcheck

dist: ## Build wheel and sdist into dist/, and check both as PyPI does, and more
	rm -rf dist
	$(PYTHON) -m venv $(VENV)/dist
	$(VENV)/dist/bin/python -m pip install --quiet build==1.6.1 twine==7.0.0 check-wheel-contents==0.6.3
	$(VENV)/dist/bin/python -m build --outdir dist .
	$(VENV)/dist/bin/twine check --strict dist/*
	$(VENV)/dist/bin/check-wheel-contents dist/*.whl

sbom: $(STAMP) ## List every installed package with version and licence, as CycloneDX: sbom.json
	$(PYTHON) -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install --quiet cyclonedx-bom==7.5.0
	$(VENV)/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		--output-file sbom.json $(BIN)/python

clean: ## Remove .venv, the demo and what tools leave
	rm -rf $(VENV) demo build dist docs/_build docs/generated sbom.json .coverage .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -type d -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "canal needs Python 3.11 or newer; none was found." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON); the first time this takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev
	@touch $@

$(STAMP).docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group docs
	@touch $@
