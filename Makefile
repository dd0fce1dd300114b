# Two commands for users: `make up` and `make down`. For developers: `make check`, `make test`.
# Everything lives in .venv, .emp and logs below this folder; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
FILE ?= emp.yaml
JOBS ?= 2
# Tests of whole stacks wait more than they work.
WAITING ?= 3

# How many harms `make fuzz` does to a fleet's Redis, which, and how many of them at the same time.
CASES ?= 10000
SEED ?= 0
TOGETHER ?= 8
# How many requests `make fuzz-api` makes of each operation of the API.
EXAMPLES ?= 1000

.PHONY: up down status check test times-begin fuzz fuzz-api test-system lock audit docs wheel bench bench-peers bench-queue bench-reconcile bench-stream bench-containers bench-first-claim bench-page bench-comfyui bench-pools

## Users

up: $(VENV)/.runtime
	@$(BIN)/emp apply -y $(FILE)

down:
	@if [ -x $(BIN)/emp ] && [ -e .emp/control/settings.json ]; then $(BIN)/emp down; else echo "nothing was applied here"; fi

status: $(VENV)/.runtime
	@$(BIN)/emp status

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "emp needs Python 3.11 or newer; name one: make up PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no venv module: apt-get install python3-venv, then again"; exit 1; }

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing emp and what it needs into $(VENV)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

## Developers

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "installing the tools of the tests into $(VENV)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.runtime

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -m audit.lua
	$(BIN)/pytest -q -n $(JOBS) -m "not deep" tests/unit tests/property

test-system:
	@tests/system.sh

# Whole stacks beside each other take all of two cores, and what waits for one may wait too long. What failed so is run
# again by itself; what fails again is red, and both are in the log.
define beside
$(BIN)/pytest -q -n $(WAITING) --dist loadfile $(1) || { [ $$? -eq 1 ] && \
  echo "again, by itself: what failed beside others" && $(BIN)/pytest -q --maxfail 1 --last-failed $(1); }
endef

# Where the time of `make test` went: a line a run of pytest, and its folders (tests/support/times.py).
TIMES := $(VENV)/test-times

times-begin:
	@mkdir -p $(VENV) && : > $(TIMES)

test: export EMP_TEST_TIMES = $(abspath $(TIMES))
test: times-begin test-system check
	$(BIN)/pytest -q -n $(JOBS) -m deep tests/property
	$(call beside,--durations=25 tests/contract tests/integration tests/security tests/e2e tests/browser)
	$(call beside,--durations=10 tests/docker)
	@cat $(TIMES)

# A quarter of an hour; in `make test` the same runs for seconds.
fuzz: $(VENV)/.dev
	EMP_FUZZ=$(CASES) EMP_FUZZ_SEED=$(SEED) EMP_FUZZ_TOGETHER=$(TOGETHER) $(BIN)/pytest -q --timeout 0 -n $(JOBS) tests/security/redis/test_hostile_redis.py -k any_bytes

# All that /openapi.json says, asked of a fleet's API, so many times for each operation.
fuzz-api: $(VENV)/.dev
	EMP_FUZZ_API=$(EXAMPLES) EMP_FUZZ_SEED=$(SEED) $(BIN)/pytest -q --timeout 3600 tests/security/api/test_openapi_fuzz.py

# Ends with 1 where something is found, with 3 where nothing is and the advisory service could not be asked.
audit: $(VENV)/.dev
	@$(BIN)/python -m audit

# build/docs/site: opens from the folder, searches without a network. Ends with 1 where a link leads nowhere.
docs: $(VENV)/.dev
	@$(BIN)/python -m docs_site

wheel: $(VENV)/.dev
	$(BIN)/python -m build --no-isolation --wheel

## Measured comparisons, by hand on a quiet machine: bench/README.md. `make bench-queue BENCH=--quick`

bench: bench-queue bench-reconcile bench-stream bench-page bench-comfyui

bench-peers: $(VENV)/.dev
	@$(BIN)/python -m bench.peers.setup

bench-queue: $(VENV)/.dev
	@$(BIN)/python -m bench.queue $(BENCH)

bench-reconcile: $(VENV)/.dev
	@$(BIN)/python -m bench.reconcile $(BENCH)

bench-stream: $(VENV)/.dev
	@$(BIN)/python -m bench.stream $(BENCH)

bench-page: $(VENV)/.dev
	@$(BIN)/python -m bench.page $(BENCH)

bench-comfyui: $(VENV)/.dev
	@$(BIN)/python -m bench.comfyui $(BENCH)

bench-pools: $(VENV)/.dev
	@$(BIN)/python -m bench.pools $(BENCH)

bench-containers: $(VENV)/.dev
	@$(BIN)/python -m bench.containers $(BENCH)

bench-first-claim: $(VENV)/.dev
	@$(BIN)/python -m bench.first_claim $(BENCH)

# One lock for every Python from 3.11.0 on: what only some need carries its condition.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11.0 --generate-hashes --no-header --no-emit-index-url

lock: $(VENV)/.dev
	$(PIP) install uv
	$(LOCK) --extra build -o requirements.lock pyproject.toml
	$(LOCK) --extra build --extra dev -o requirements-dev.lock pyproject.toml
	$(LOCK) -o tests/s3-server.lock tests/s3-server.in
