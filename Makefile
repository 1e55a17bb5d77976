PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEMO ?= runs/demo

.PHONY: demo test docs lint format setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[vision,timm,distributed,ray,dev]" -c constraints.txt
	@touch $@

demo: $(STAMP)
	@$(BIN)/lcprune demo --out $(DEMO) --force

test: $(STAMP)
	@$(BIN)/python -m pytest

docs: $(STAMP)
	@$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --nitpicky \
		--quiet docs docs/_build

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build build dist
