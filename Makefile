# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make run     the scheduler at work on a demo project
#   make test    every test
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*)
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
DEMO := .demo
WHEELS := dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11: name a newer one, e.g. make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

$(INSTALLED): $(BIN)/python pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	$(BIN)/pip install --quiet --editable . $(PLUGINS:%=--editable ./%)
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/pip install --quiet --group dev
	@touch $@

.PHONY: run
run: $(INSTALLED) ## run the scheduler and its dashboard on a demo project; Ctrl-C stops it
	$(BIN)/python docs/demo/create.py $(DEMO)
	$(BIN)/systemprompt --root $(DEMO) infra jobs pause send_newsletter --note "the text is not ready"
	$(BIN)/systemprompt --root $(DEMO) infra jobs serve --dashboard

.PHONY: test
test: $(INSTALLED_DEV) ## run every test
	$(BIN)/pytest -n auto --dist worksteal

MINUTES ?= 1

.PHONY: soak
soak: $(INSTALLED_DEV) ## break schedulers, network and database for MINUTES=n on each database
	PYTHONPATH=. $(BIN)/python tests/faults/soak.py $(MINUTES)

SEEDS ?= 500
ONLY ?=

.PHONY: simulate
simulate: $(INSTALLED_DEV) ## live through SEEDS=n days with faults on virtual time; ONLY=n tells one
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(ONLY),--only $(ONLY))

.PHONY: lint
lint: $(INSTALLED_DEV) ## check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

SITE := site

.PHONY: docs
docs: $(INSTALLED_DEV) ## build the documentation's site into site/; a link that leads nowhere fails
	NO_COLOR=1 $(BIN)/python docs/site/build.py $(SITE)

.PHONY: format
format: $(INSTALLED_DEV) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: wheels
wheels: $(BIN)/python ## build the package and our plugins into dist/
	rm -rf $(WHEELS)
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(WHEELS) . $(PLUGINS:%=./%)

.PHONY: bench-schedules
bench-schedules: $(INSTALLED_DEV) ## time the next tick against other cron libraries
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python tests/bench/bench_schedules.py

.PHONY: bench-store
bench-store: $(INSTALLED_DEV) ## time recorded runs on SQLite and PostgreSQL
	$(BIN)/python -m tests.bench.bench_store

.PHONY: bench-window
bench-window: $(INSTALLED_DEV) ## count what a kill -9 loses, by the gate window
	$(BIN)/python -m tests.bench.bench_window

.PHONY: bench-attempts
bench-attempts: $(INSTALLED_DEV) ## time what surrounds a function: context, middleware, progress, logs
	$(BIN)/python -m tests.bench.bench_attempts

.PHONY: bench-lateness
bench-lateness: $(INSTALLED_DEV) ## time how late functions start, beside APScheduler
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m tests.bench.bench_lateness

.PHONY: bench-claims
bench-claims: $(INSTALLED_DEV) ## time the claims of 10,000 jobs due at one instant, four schedulers
	$(BIN)/python -m tests.bench.bench_claims

.PHONY: bench-idle
bench-idle: $(INSTALLED_DEV) ## measure a scheduler with 100,000 jobs and nothing to do
	$(BIN)/python -m tests.bench.bench_idle

.PHONY: bench-executors
bench-executors: $(INSTALLED_DEV) ## time trivial functions in threads, tasks and processes
	$(BIN)/python -m tests.bench.bench_executors

.PHONY: bench-peers
bench-peers: $(INSTALLED_DEV) ## time recorded runs beside huey, Procrastinate, Dramatiq and Celery
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m tests.bench.bench_peers

.PHONY: bench-dashboard
bench-dashboard: $(INSTALLED_DEV) ## time the dashboard's pages over 5,000 jobs and 2,000,000 runs
	$(BIN)/python -m tests.bench.bench_dashboard

.PHONY: bench-celery
bench-celery: $(INSTALLED_DEV) ## time runs on Celery against bare Celery, and dispatch to start
	$(BIN)/python -m tests.bench.bench_celery

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf $(VENV) $(DEMO) $(WHEELS) $(SITE) .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 18
