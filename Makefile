PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv/.bench-installed
CONTRACT_INSTALLED := .venv/.contract-installed

# Most tests wait for a disk, a server or a time-out, those of the core less: more processes than cores.
CORES := $(shell getconf _NPROCESSORS_ONLN)
PROCESSES = $(shell expr $(CORES) + 6)
test-core: PROCESSES = $(shell expr $(CORES) + 2)
ON_POSTGRES = $(addprefix tests/,postgres journeys services delivery web openapi operations/test_housekeeping.py test_*.py)
PYTEST = $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=worksteal
unexport PYTHONDONTWRITEBYTECODE  # else each of these processes, and each server under test, compiles all files again

.PHONY: help setup run serve migrate demo lab test test-core test-postgres drill lessons lesson exercise check audit contract bench bench-quick

help:  ## list these commands; `make` alone does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## make .venv and install what development needs; only when pyproject.toml has changed

# .venv stays while it works here and is of the Python that was asked for, if one was (`make PYTHON=python3.12 setup`).
ASKED := $(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON))
VERSION := -c 'import sys; print(sys.version_info[:2])'
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
VENV_WORKS := $(BIN)/python $(NEW_ENOUGH) && $(BIN)/python -c 'import pip' && grep -qF '$(CURDIR)/.venv' .venv/pyvenv.cfg \
	&& test "$$($(BIN)/python $(VERSION))" = "$$($(ASKED) $(VERSION))"

.venv/pyvenv.cfg: FORCE
	@{ $(VENV_WORKS); } >/dev/null 2>&1 || { \
	  $(PYTHON) $(NEW_ENOUGH) 2>/dev/null || { \
	    echo '$(PYTHON) is no Python 3.11 or newer: make PYTHON=python3.11 setup' >&2; exit 1; }; \
	  rm -rf .venv && $(PYTHON) -m venv .venv; }

FORCE:

$(INSTALLED): pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: setup  ## serve for development on BIND (127.0.0.1:8000): database migrated, reload when code changes
	@exec $(BIN)/python app.py serve

migrate: setup  ## bring the schema of DATABASE_URL up to date
	$(BIN)/python app.py migrate

serve: migrate  ## gunicorn as in production
	exec $(BIN)/gunicorn -c python:backend.gunicorn_conf

demo: setup  ## a tour of the API against a temporary server
	$(BIN)/python app.py demo

lab: setup  ## see a request from inside, and storms against the service, on BIND (127.0.0.1:8000)
	@exec $(BIN)/python app.py lab

test: setup  ## all tests, on SQLite and, if there is one, on PostgreSQL; one area, on SQLite: make test AREA=web
	$(PYTEST) tests/$(AREA)
	$(if $(AREA),,@$(MAKE) --no-print-directory test-postgres)

test-core: setup  ## the core's tests over the core's wiring, in 80 seconds
	$(PYTEST) --wiring=core --ignore=tests/production --ignore=tests/operations --ignore=tests/lessons \
	  --ignore=tests/lab --ignore=tests/bench --ignore=tests/conformance --ignore=tests/openapi/test_page_in_a_browser.py

lessons: setup  ## break each pattern as a blog post writes it, then see the service hold; under three minutes
	@$(BIN)/python -m tests.lessons

lesson: setup  ## one of them: make lesson L=transfer
	@$(BIN)/python -m tests.lessons $(L)

exercise: setup  ## see whether yours is right, in numbers: make exercise L=transfer
	@$(BIN)/python -m pytest -s --tb=short tests/lessons/exercises/check_$(L).py

drill: setup  ## back up under load, crash, restore; kill the restore at every step; under a minute
	$(BIN)/python -m tests.operations.drill

test-postgres: setup  ## the part of `make test` that runs on PostgreSQL; it starts a server
	$(PYTEST) --wiring=postgres $(ON_POSTGRES)

check: setup  ## style, types, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house_rules.py

audit: setup  ## check the packages in .venv for known vulnerabilities; needs the network
	$(BIN)/python -m backend.operations.package_audit

$(CONTRACT_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[contract]'
	npm install --silent --no-fund --no-audit --prefix .venv/spectral @stoplight/spectral-cli@6
	@touch $@

contract: $(CONTRACT_INSTALLED)  ## test the API against its document with Spectral and Schemathesis; needs npm
	$(BIN)/python -m tests.contract .venv/spectral/node_modules/.bin/spectral $(BIN)/schemathesis

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

bench: $(BENCH_INSTALLED)  ## measure the service beside its alternatives; 8 minutes
	$(BIN)/python -m tests.bench

bench-quick: $(BENCH_INSTALLED)  ## the same in two minutes, for a first look; no report is written
	$(BIN)/python -m tests.bench --quick
