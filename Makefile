# make demo   fresh machine: environment, MT10 data, training, evaluation, runs/demo/report.html
# make test   fresh machine: environment, all tests
# make check  before every commit, a minute: lint, types, all tests but whole trainings and the simulator's
# make extras EXTRA=ray   the tests that use an extra, after make install EXTRAS=dev,ray
# make coverage   all tests, and which lines they reach
# make docs   the documentation, into site/
# Needs Python 3.11 to 3.13, git and make.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

EXTRAS ?= dev
CONSTRAINTS ?= constraints.txt

DEMO ?= runs/demo
DEMO_DATA ?= data/mt10_expert
DEMO_EPISODES ?= 40
DEMO_STEPS ?= 3000
DEMO_GOALS ?= 10
DEMO_REFERENCES = $(dir $(DEMO))references

# A test process for every processor, with one thread each; a process that has nothing left takes over from another.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: install demo test check quick extras coverage lint docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.11, 3.12 or 3.13. Set PYTHON=python3.12, say."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@

demo: install
	$(BIN)/mtorl demo --out $(DEMO) --run $(DEMO) --store $(DEMO_DATA) --references $(DEMO_REFERENCES) \
	  --episodes $(DEMO_EPISODES) --steps $(DEMO_STEPS) --goals $(DEMO_GOALS)

test: install
	$(TEST)

check: lint quick

quick: install
	$(TEST) -m 'not simulator and not slow and not training'

extras: install
	$(BIN)/python -m pytest $$($(BIN)/python tests/extras.py $(EXTRA))

coverage: install
	$(TEST) --cov --cov-report=term:skip-covered --cov-report=html

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .coverage* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site *.egg-info
