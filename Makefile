# What one does in a checkout. Needs Python 3.11 or later with its venv module, make, and nothing else; everything is
# installed into .venv (Node.js, too) and, for the TypeScript SDK, its node_modules, from the lock files, by hash. Stamp
# files make repeated runs instant.

PYTHON ?= python3
# For `make lock` alone.
UV ?= $(or $(wildcard .venv/bin/uv),uv)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Node.js and npm are in .venv, too.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --loglevel=error
STAMPS := .venv/.stamps
# The lock files hold the public hashes of every platform, whatever mirrors this machine has configured.
COMPILE := env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
	$(UV) pip compile --quiet --no-config --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate $(LOCKFLAGS)

.DEFAULT_GOAL := help
.PHONY: help run test test-browser check faults fuzz conformance format bench schema sdk suite reference lock clean
.DELETE_ON_ERROR:

help: ## list these targets
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: $(STAMPS)/runtime ## start the demo: database, sample MCP server and proxy on 127.0.0.1:8080
	@$(BIN)/aegis-proxy demo

# A worker for each processor, which takes file after file as they stand: short ones come last.
test: $(STAMPS)/dev $(STAMPS)/typescript $(STAMPS)/oldest_node ## run the test suite (TESTS=path narrows it)
ifdef TESTS
	$(BIN)/python -m pytest $(TESTS)
else
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder
endif

# One browser for all of them, which takes one event loop for all of them.
JOURNEYS_FLAGS := -o python_files='journey_*.py' \
	-o asyncio_default_fixture_loop_scope=session -o asyncio_default_test_loop_scope=session
test-browser: $(STAMPS)/dev ## try the page in a real Chromium, which is installed where root may (pictures: .venv/pictures)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium; } || \
		{ echo 'error: there is no Chromium, and it cannot be installed here; on Debian: apt-get install chromium' >&2; exit 1; }
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile $(JOURNEYS_FLAGS) $(or $(TESTS),tests/browser)

check: $(STAMPS)/dev $(STAMPS)/typescript ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd sdk/typescript && $(NPM) run check

faults: $(STAMPS)/dev ## run the whole fault matrix (hours; FAULT_SEEDS=20, FAULT_SEED repeats one)
	$(BIN)/python -m pytest -s tests/faults/long_matrix.py

fuzz: $(STAMPS)/dev ## try a million bodies and a hundred thousand targets (ten minutes; AEGIS_FUZZ_SEED=n repeats one)
	AEGIS_FUZZ=full $(BIN)/python -m pytest tests/fuzz

conformance: $(STAMPS)/conformance ## run the official MCP conformance suite, directly and through the proxy
	$(BIN)/python -m tests.conformance

format: $(STAMPS)/dev $(STAMPS)/node_modules ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd sdk/typescript && $(NPM) run format

bench: $(STAMPS)/dev ## measure, and print ratios
	$(BIN)/python -m bench
	$(BIN)/python -m bench.decisions
	$(BIN)/python -m bench.revocation

schema: $(STAMPS)/runtime ## write the JSON Schemas in config/ anew from the models
	$(BIN)/python -c 'from proxy.settings import render_schema; print(render_schema(), end="")' > config/gateway.schema.json
	$(BIN)/python -c 'import json; from proxy.policy.model import policy_schema; print(json.dumps(policy_schema(), indent=2))' \
		> config/policy.schema.json
	$(BIN)/python -c 'import json; from proxy.policy.cases import cases_schema; print(json.dumps(cases_schema(), indent=2))' \
		> config/policy.tests.schema.json

sdk: $(STAMPS)/dev ## make anew what of the SDKs is made: the OpenAPI document, models, the blocking client
	$(BIN)/python -m sdk.assemble
	$(BIN)/python -m sdk.generate_python
	$(BIN)/python -m sdk.generate_typescript

suite: $(STAMPS)/dev $(STAMPS)/typescript ## run the suite of the SDKs in every language, and print one table
	@PYTHONPATH=sdk/python/src $(BIN)/python -m tests.sdk.table

reference: $(STAMPS)/dev $(STAMPS)/node_modules ## write the SDKs' API references to build/reference
	PYTHONPATH=sdk/python/src $(BIN)/python -m pdoc aegis_sdk -o build/reference/python
	cd sdk/typescript && $(NPM) run reference -- --out "$(CURDIR)/build/reference/typescript"

lock: ## resolve the lock files anew, with uv and npm (LOCKFLAGS=--upgrade takes newer versions)
	$(COMPILE) --extra demo --extra build --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml
	cd sdk/typescript && $(NPM) $(if $(findstring --upgrade,$(LOCKFLAGS)),update,install) --package-lock-only

clean: ## remove .venv and everything built or cached
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis sdk/typescript/dist
	find . -type d \( -name __pycache__ -o -name node_modules \) -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: $(PYTHON) is not Python 3.11 or later; name one that is: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: requirements.lock pyproject.toml | $(STAMPS)/venv
	@echo 'installing from requirements.lock into .venv'
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@$(PIP) check
	@touch $@

$(STAMPS)/dev: requirements-dev.lock $(STAMPS)/runtime
	@echo 'installing from requirements-dev.lock into .venv'
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

$(STAMPS)/node_modules: sdk/typescript/package.json sdk/typescript/package-lock.json $(STAMPS)/dev
	@echo 'installing from sdk/typescript/package-lock.json'
	@cd sdk/typescript && $(NPM) ci
	@touch $@

$(STAMPS)/typescript: $(wildcard sdk/typescript/src/*.ts sdk/typescript/tsconfig*.json) $(STAMPS)/node_modules
	@cd sdk/typescript && $(NPM) run --silent build
	@touch $@

$(STAMPS)/oldest_node: tests/sdk/oldest_node/package.json tests/sdk/oldest_node/package-lock.json $(STAMPS)/dev
	@cd tests/sdk/oldest_node && $(NPM) ci
	@touch $@

$(STAMPS)/conformance: tests/conformance/package.json tests/conformance/package-lock.json $(STAMPS)/dev
	cd tests/conformance && $(NPM) ci
	@touch $@
