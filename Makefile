# On a machine with nothing but Python 3.10-3.13: `make demo` shows mlq at work, `make test` checks it.

# Tried, not only found: a version manager's stand-in for a missing version fails when it is run.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3.10 python3 python; do \
  $$python -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
    2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
NO_PYTHON := mlq needs Python 3.10, 3.11, 3.12 or 3.13 with its venv module; install one, or name it: make PYTHON=/path/to/python3.12

.PHONY: demo test table figures docs format clean

demo: .venv/installed
	$(BIN)/mlq demo

# Cheapest first; the first that fails ends it. The last line counts pytest's and lit's tests together.
test: .venv/installed-dev
	@.ci/packages || true
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks
	$(BIN)/lint-imports
	@mkdir -p build
	$(BIN)/pytest --numprocesses 2 --junitxml build/pytest.xml
	$(BIN)/lit --verbose --print-result-after failed --workers 2 --xunit-xml-output build/lit.xml lit_tests; \
	  status=$$?; $(BIN)/python .ci/tally.py build/pytest.xml build/lit.xml; exit $$status

table: .venv/installed-dev
	$(BIN)/python benchmarks/table.py

# Tables and figures of docs/quantunev2.md; hours on all networks, less with what benchmarks/out holds.
figures: .venv/installed-dev
	$(BIN)/python benchmarks/figures.py

# What the docs take from the code: the dialect's page, help texts, the table of passes.
docs: .venv/installed-dev
	$(BIN)/python docs/generate.py

format: .venv/installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv build out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: WHAT = .
.venv/installed-dev: WHAT = .[dev]
.venv/installed .venv/installed-dev: pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }; \
	  echo "making .venv with $(PYTHON)"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing the pinned dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(WHAT)'
	@touch $@
