# The commands of the README. Each sets up what it needs first; a second run of `setup` does nothing.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 1
SCENARIO ?= surge
JSON ?=
PYTEST_ARGS ?=
COMMAND ?=
DATABASE ?=
PREFIX ?= /opt/forepath
FUZZ_SECONDS ?= 300
MINUTES ?=
COUNT ?= 24
# ryu or os-ken; what tests start has it, too.
FRAMEWORK ?= ryu
export FOREPATH_FRAMEWORK = $(FRAMEWORK)
# Ryu 4.34 builds only with an old setuptools; one of these two reaches pip's isolated build in every pip.
PIP_ENV := PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/build-constraints.txt
STAGE := $(BIN)/python -m tools.lab.stage --

.PHONY: help setup install demo lab test test-long chaos soak check mutants bench bench-forecast bench-route bench-whatif fuzz clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make setup   system packages (root, apt), .venv and the Python packages (FRAMEWORK=ryu|os-ken)
setup: .venv/ready-$(FRAMEWORK)

.venv/ready-$(FRAMEWORK): setup.cfg constraints.txt build-constraints.txt requirements.lock deploy/system-packages.sh deploy/python-packages.sh
	@deploy/system-packages.sh || echo "forepath: going on without them; the demo will be simulated"
	@$(PIP_ENV) PYTHON=$(PYTHON) FRAMEWORK=$(FRAMEWORK) deploy/python-packages.sh
	@touch $@

## make install forepath as a service's programs, with units and completion, below PREFIX (/opt/forepath)
install:
	@$(PIP_ENV) PYTHON=$(PYTHON) FRAMEWORK=$(FRAMEWORK) deploy/install.sh $(PREFIX)

## make demo    the closed loop on a lab of real switches and VMs (SEED=n, SCENARIO=surge|calm|crowd, QUICK=1, SIMULATE=1, JSON=out.json)
demo: setup
	@$(BIN)/forepath demo --seed $(SEED) --scenario $(SCENARIO) $(if $(QUICK),--quick) $(if $(SIMULATE),--simulate) \
	    $(if $(JSON),--json $(JSON))

## make lab     a lab of real switches and VMs that talk, to try forepath on: a shell in it, or COMMAND=...
lab: setup
	@$(BIN)/python -m tools.lab.assets && $(STAGE) $(BIN)/python -m tools.lab $(COMMAND)

## make test    all tests; those on real switches and VMs run on two stages of their own, the others beside them; what
##              fails runs twice (FRAMEWORK=os-ken: the same ones on os-ken)
test: setup
	@tools/tests.sh $(PYTEST_ARGS)

## make test-long  the tests that take minutes: rare failures and whole life cycles on real machines
test-long: setup
	$(STAGE) $(BIN)/pytest -m long $(PYTEST_ARGS)

## make chaos   breaks a running lab in a seeded order and checks what must hold
##              (SEED=n MINUTES=m DATABASE=sqlite|postgresql JSON=out.json)
chaos: setup
	@$(STAGE) $(BIN)/python -m tools.chaos --seed $(SEED) --minutes $(or $(MINUTES),5) $(if $(DATABASE),--database $(DATABASE)) $(if $(JSON),--json $(JSON))

## make soak    lets a lab (MINUTES=m), or a simulated day (DAY=1), run without a fault and checks that nothing grows
soak: setup
	@$(if $(DAY),,$(STAGE)) $(BIN)/python -m tools.soak $(if $(DAY),--day,--minutes $(or $(MINUTES),60)) $(if $(JSON),--json $(JSON))

## make check   lint, format, types, import contracts, packages as they were locked, budgets of the house
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg
	$(BIN)/python -m tools.audit
	$(BIN)/python -m tools.house
	$(BIN)/pytest -q tests/test_house.py

## make mutants   do the tests notice a changed operator? (SEED=n COUNT=m)
mutants: setup
	$(BIN)/python -m tools.mutants --seed $(SEED) --count $(COUNT)

## make bench   what the loop costs, as ratios and against limits (JSON=out.json)
bench: setup
	@$(BIN)/python -m tools.bench $(if $(JSON),--json $(JSON))

## make bench-compute DATA=DIR   replays recorded machines and writes docs/results/compute.md
bench-compute: setup
	$(BIN)/python -m tools.compute_page $(DATA) docs/results/compute.md

## make bench-forecast DATA=DIR   replays the public traffic sets and writes docs/results/forecast.md
bench-forecast: setup
	$(BIN)/python -m tools.forecast_page $(DATA) docs/results/forecast.md

## make fuzz    hostile OpenFlow messages for longer (FUZZ_SECONDS=n); guided by coverage where atheris can be had
fuzz: setup
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/pip install --quiet "atheris>=2.3" || true
	@$(BIN)/python tests/ryu_apps/fuzz_openflow.py $(FUZZ_SECONDS) $(SEED)

## make bench-route DATA=DIR   replays recorded traffic matrices and writes docs/results/route.md
bench-route: setup
	$(BIN)/python -m tools.route_page docs/results/route.md $(DATA)

## make bench-whatif DATA=DIR   replays scenarios and recorded traffic under all policies and writes docs/results/whatif.md
bench-whatif: setup
	$(BIN)/python -m tools.whatif_page docs/results/whatif.md $(DATA)

## make clean   removes what was built or fetched, and .run with the last demo's data; no other database
clean:
	rm -rf .venv .lab .run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .fuzz
	find . -name __pycache__ -prune -exec rm -rf {} +
