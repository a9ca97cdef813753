# The two commands of a fresh clone: make demo, make test. Both need Python 3.11 or newer, git and make; no compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EMBEDDED_FOR_TESTS := centerface face-mesh
FAST := not slow
ISA_TESTS := tests/test_ops.py tests/test_ops_fused.py tests/test_ops_values.py tests/test_modulated.py \
	tests/test_winograd.py tests/test_networks.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow test-isa lint bench docs wheel clean

help:
	@echo "make demo       swap an example pair, write a contact sheet into demo-out/"
	@echo "make test       run the tests but the slow ones (make test PYTEST_ARGS='-k layers' for some)"
	@echo "make test-slow  run the slow ones"
	@echo "make test-isa   run ops, networks and the bundled checkpoint as on older processors"
	@echo "make lint       ruff and mypy"
	@echo "make bench      seconds per swap on this machine, as JSON in runs/"
	@echo "make docs       documentation with the API reference, into build/site"
	@echo "make wheel      build a wheel into dist/"
	@echo "make clean      remove what was built, the environment included"

demo: $(VENV)/.demo
	@$(BIN)/python -m mattface ops build --if-possible
	@$(BIN)/python -m mattface demo --out demo-out

test: ready
	$(BIN)/python -m pytest -m '$(FAST)' $(PYTEST_ARGS)

test-slow: ready
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# oneDNN and torch keep to AVX2, then to the oldest instructions they know; the second pass has no kernels of ours either.
test-isa: ready
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
		$(BIN)/python -m pytest -m '$(FAST)' $(ISA_TESTS) tests/test_bundle.py $(PYTEST_ARGS)
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default MATTFACE_HOME=$$(mktemp -d) \
		$(BIN)/python -m pytest -m '$(FAST)' $(ISA_TESTS) $(PYTEST_ARGS)

.PHONY: ready
ready: $(VENV)/.dev
	@$(BIN)/python -m mattface ops build --if-possible
	@$(BIN)/python -m mattface weights pull $(EMBEDDED_FOR_TESTS) || \
		echo "The perception parts could not be fetched: tests that need them are skipped."

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/python .ci/check_types.py

bench: $(VENV)/.bench
	$(BIN)/python -m mattface.benchmarks.swap_time --out runs/swap_time.json

docs: $(VENV)/.dev $(VENV)/.docs
	@rm -rf build/docs-package build/site
	@MATTFACE_BUILD_OPS=0 $(BIN)/python setup.py --quiet build_py --build-lib build/docs-package
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

wheel: $(VENV)/.dev
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for everything; installed again only when the packaging changes. pip prints errors alone.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "expected Python 3.11 or newer; got $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml setup.py .ci/constraints.txt | $(BIN)/python
	@echo "Installing what '$*' needs into $(VENV)/ (the first time this takes minutes)"
	@$(BIN)/python -m pip install -qq --constraint .ci/constraints.txt --editable '.[$*]'
	@touch $@
