# Each target sets up what it needs: a Python 3.11+ that can make virtual environments, make and bash are enough.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
ONLY ?=

.PHONY: install demo test soak lint bench lock clean

install: $(VENV)/.installed

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9

$(VENV)/.installed: $(BIN)/uv requirements.lock pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	touch $@

demo: install
	$(BIN)/streamgauge demo $(if $(CHECK),--check)

test: $(VENV)/.installed-dev
	$(BIN)/pytest -m "not soak" -n 2 --dist loadfile $(ARGS)

soak: $(VENV)/.installed-dev
	$(BIN)/pytest -m soak $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(VENV)/site

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/run.py $(ONLY)

lock: $(BIN)/uv
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --extra spark --extra sandbox -o requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --extra spark --extra sandbox --group dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
