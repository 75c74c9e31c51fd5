# Everything for this project: `make setup`, `make run`, `make test`; `make` alone lists all.
# The environment is .venv; it is filled anew only when uv.lock or pyproject.toml has changed.

BIN := .venv/bin
STAMP := .venv/.installed
# More for pytest, such as PYTEST_ARGS='tests/trading -x'.
PYTEST_ARGS ?=

.PHONY: help setup run test lint notebooks unit optional bench lock environment clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## /\1	/p' Makefile | expand -t 14

setup: $(STAMP) ## fill .venv with everything that uv.lock names

$(STAMP): pyproject.toml uv.lock
	@echo "== setup"
	@bash .ci/make-venv

run: setup ## start the desk and its pages
	$(BIN)/desk up

test: lint notebooks unit ## lint, run every notebook, then every test

lint: setup ## ruff's checks and its format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: setup ## run every notebook in a prepared home
	@echo "== notebooks"
	@bash .ci/notebooks

unit: setup ## pytest, in random order, on two cores
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

optional: setup ## the checks that need Chromium and PostgreSQL
	$(BIN)/python -m pytest -m "browser or postgres"

bench: setup ## run every measurement in benchmarks/
	@set -e; for file in benchmarks/*.py; do \
	  [ -e "$$file" ] || { echo "no benchmarks yet"; continue; }; \
	  echo "== $$file"; $(BIN)/python "$$file"; \
	done

lock: setup ## resolve the dependencies anew into uv.lock
	$(BIN)/uv lock --upgrade

environment: setup ## write environment.yml (conda) from pyproject.toml
	$(BIN)/python tests/project/environment_file.py

clean: ## remove the environment and the caches; the desk's home and the reports stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .ci/out build dist
	find . -name __pycache__ -type d -not -path './.desk/*' -prune -exec rm -rf {} +
