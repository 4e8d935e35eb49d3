# The virtual environment is made once, by whichever target needs it first.
.DEFAULT_GOAL := help
.PHONY: help demo test check format bench hazards soak faults clean

# The first Python of 3.10 or later that can make virtual environments. `make PYTHON=... test` picks another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)
VENV ?= .venv
BIN = $(VENV)/bin

help: ## Show this help
	@echo "analytics-batcher"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | while IFS="	" read -r target text; do \
		printf '  make %-7s %s\n' "$$target" "$$text"; done

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later, with venv and ensurepip, was not found: make PYTHON=/path/to/python"; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv "$(VENV)"

# Each stamp stands for one finished installation, so that an interrupted one is done again.
$(VENV)/.core: $(BIN)/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.core
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.hazards: $(VENV)/.core
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[hazards]'
	@touch $@

demo: $(VENV)/.core ## Run the main job against a local receiver (TO=vitally|customerio|segment|all, FAULTS=1: with faults)
	@$(BIN)/python -m analytics_batcher demo $(if $(TO),--to $(TO)) $(if $(filter-out 0,$(FAULTS)),--faults)

# Most tests wait for something: four at a time keep two cores busy.
test: $(VENV)/.dev ## Run the tests (ARGS="-n 0 -k name": some of them, in one process)
	@$(BIN)/python -m pytest -n 4 $(ARGS)

check: $(VENV)/.dev ## Lint (ruff, all rules), check types (mypy --strict) and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# In environments of their own: what the other libraries need is none of the tests' business.
bench: ## Measure beside five others, a quarter of an hour; writes benchmarks/results.md (ARGS="--quick": two minutes; prints)
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench $(VENV)-bench/.bench
	@$(VENV)-bench/bin/python benchmarks/bench.py $(or $(ARGS),--write benchmarks)

hazards: ## Run what breaks such libraries against ours and five others (WRITE=file: the table as Markdown; minutes)
	@$(MAKE) --no-print-directory VENV=$(VENV)-hazards $(VENV)-hazards/.hazards
	@$(VENV)-hazards/bin/python benchmarks/hazards.py $(if $(WRITE),--write "$(WRITE)") $(ARGS)

soak: $(VENV)/.dev ## Run an application in bad weather for 20 minutes (ARGS="--seconds 60": shorter), then kill writers of a spool, and a fleet
	@$(BIN)/python tests/soak.py $(ARGS)
	@SPOOL_ROUNDS=200 SPOOL_SECONDS=60 $(BIN)/python -m pytest -n 0 -s tests/test_sqlite.py -k "killing_writers or one_owner"
	@FLEET_ROUNDS=30 FLEET_OUTAGE=60 $(BIN)/python -m pytest -n 0 -s tests/test_fleet_storm.py

faults: $(VENV)/.dev ## Break copies of the package on purpose, and see each fault caught by a test (ARGS="--jobs 2")
	@$(BIN)/python tests/seeded_faults.py $(ARGS)

clean: ## Remove the virtual environments and what tools left behind
	@rm -rf "$(VENV)" "$(VENV)-bench" "$(VENV)-hazards" .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
