# Everything runs in .venv, which is made when it is missing and reused otherwise.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Two processes of one thread each: most tests are too small to share among threads. A process that crashes ends the
# tests; otherwise the others would wait for its tests for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --max-worker-restart 0

.PHONY: help demo test test-all check fix clean
help:
	@echo "make demo   fit, evaluate and predict offline; results in demo/"
	@echo "make test   run the tests"
	@echo "make test-all  run the tests and the exhaustive forms of tests"
	@echo "make check  ruff, basedpyright, import-linter, inventory of public names"
	@echo "make fix    format and mend what ruff can"

$(BIN)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: $(BIN)/.ready
	$(BIN)/sppnet demo --out demo

test: $(BIN)/.ready
	$(PYTEST) -m "not exhaustive"

test-all: $(BIN)/.ready
	$(PYTEST)

check: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python tests/inventory.py

fix: $(BIN)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo runs build dist .pytest_cache .ruff_cache .hypothesis
