PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest/bin
DEMO ?= runs/demo
WORKERS ?= 2
ARGS ?=

INSTALL := -m pip install --quiet --disable-pip-version-check
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-all test-oldest docs lint format setup clean

setup: .venv/.dev

# What `lcprune` itself needs: enough for the demo.
.venv/.base: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) -e . -c constraints.txt
	@touch $@

# That and what tests, lint and docs need.
.venv/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) -e ".[vision,timm,ray,onnxruntime,openvino,dev]" -c constraints.txt
	@touch .venv/.base $@

.venv-oldest/.dev: pyproject.toml constraints-oldest.txt
	@test -x $(OLDEST)/python || $(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python $(INSTALL) -e ".[vision,timm,ray,test]" -c constraints-oldest.txt
	@touch $@

demo: .venv/.base
	@$(BIN)/lcprune demo --out $(DEMO) --force

test: .venv/.dev
	@$(BIN)/python $(PYTEST) -m "not thorough" $(ARGS)

test-all: .venv/.dev
	@$(BIN)/python $(PYTEST) $(ARGS)

# The oldest versions of everything that pyproject.toml admits.
test-oldest: .venv-oldest/.dev
	@$(OLDEST)/python $(PYTEST) $(ARGS)

docs: .venv/.dev
	@$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --nitpicky \
		--quiet docs docs/_build

lint: .venv/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

format: .venv/.dev
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

clean:
	rm -rf .venv .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		docs/_build build dist
