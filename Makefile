# The two commands of a fresh clone: make demo, make test. Both need Python 3.11 or newer, git and make; no compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FOLDERS := cuda_ops weights realtime training benchmarks
EMBEDDED_FOR_TESTS := centerface face-mesh
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint bench docs wheel clean

help:
	@echo "make demo   swap an example pair, write a contact sheet into demo-out/"
	@echo "make test   run the tests (make test PYTEST_ARGS='-k layers' for some)"
	@echo "make lint   ruff and mypy"
	@echo "make bench  seconds per swap on this machine, as JSON in runs/"
	@echo "make docs   documentation with the API reference, into build/site"
	@echo "make wheel  build a wheel into dist/"
	@echo "make clean  remove what was built, the environment included"

demo: $(VENV)/.demo
	@$(BIN)/python -m mattface ops build --if-possible
	$(BIN)/python -m mattface demo --out demo-out

test: $(VENV)/.dev
	@$(BIN)/python -m mattface ops build --if-possible
	@$(BIN)/python -m mattface weights pull $(EMBEDDED_FOR_TESTS) || \
		echo "The perception parts could not be fetched: tests that need them are skipped."
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	@rm -rf build/types && mkdir -p build/types/mattface
	@for part in mattface/* $(FOLDERS); do ln -s "$(CURDIR)/$$part" build/types/mattface/; done
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p mattface

bench: $(VENV)/.demo
	$(BIN)/python -m mattface.benchmarks.swap_time --out runs/swap_time.json

docs: $(VENV)/.docs
	@rm -rf build/docs-package build/site
	@MATTFACE_BUILD_OPS=0 $(BIN)/python setup.py --quiet build_py --build-lib build/docs-package
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

wheel: $(VENV)/.dev
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for everything; installed again only when the packaging changes.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "expected Python 3.11 or newer; got $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.docs: docs/requirements.txt $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --requirement docs/requirements.txt
	@touch $@
