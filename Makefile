# Every task of the repository. `make help` lists them.
# Options for the program behind a target go into ARGS: make up ARGS="--port 9000", make test ARGS="-k budget".
.DEFAULT_GOAL := help
SHELL := /bin/bash
ARGS ?=
BIN := .venv/bin
# Each worker holds a Redis and its own connections; beyond eight the servers are the bottleneck.
WORKERS_MAX ?= 8

.PHONY: up
up: ## Run the whole platform on this machine (ARGS: options of `ias up`)
	@requirements/install.sh runtime
	@exec $(BIN)/ias up $(ARGS)

.PHONY: down
down: ## Stop a platform that runs in the background (ARGS: options of `ias down`)
	@requirements/install.sh runtime
	@exec $(BIN)/ias down $(ARGS)

.PHONY: status
status: ## Show what runs, and whether it is ready (ARGS: options of `ias status`)
	@requirements/install.sh runtime
	@exec $(BIN)/ias status $(ARGS)

.PHONY: logs
logs: ## Show the logs of the platform's processes (ARGS: a name and options of `ias logs`)
	@requirements/install.sh runtime
	@exec $(BIN)/ias logs $(ARGS)

.PHONY: check
check: ## Style, types, walls between services, generated files up to date
	@requirements/install.sh dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python contracts/generate.py --check
	@! grep -nE '^ *(-i|-f|--(extra-)?index-url|--find-links)|://' requirements/*.txt \
		|| { echo "lock files must hold no addresses"; exit 1; }

.PHONY: test
test: ## All tests, on real servers that the run finds, installs or starts itself (ARGS: options of pytest)
	@requirements/install.sh dev
	@$(BIN)/python -m tests.servers.programs
	$(BIN)/pytest -n auto --maxprocesses=$(WORKERS_MAX) $(ARGS)

.PHONY: bench
bench: ## Measure the gateway against nginx on this machine (ARGS: options of benchmarks/run.py)
	@requirements/install.sh dev
	$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: bench-revocation
bench-revocation: ## Measure how soon every gateway worker refuses a revoked key (ARGS: options of benchmarks/revocation.py)
	@requirements/install.sh dev
	$(BIN)/python benchmarks/revocation.py $(ARGS)

.PHONY: bench-routes
bench-routes: ## Measure how soon every gateway worker knows of a change of routes (ARGS: options of benchmarks/route_changes.py)
	@requirements/install.sh dev
	$(BIN)/python benchmarks/route_changes.py $(ARGS)

.PHONY: compile
compile: ## Compile the gateway's hot modules with mypyc (needs a C compiler; workers use the build from then on)
	@requirements/install.sh dev
	@$(BIN)/python requirements/compile.py

.PHONY: test-compiled
test-compiled: compile ## The gateway's tests on the compiled build (ARGS: options of pytest)
	@$(BIN)/python -m tests.servers.programs
	PYTHONPATH=.venv/compiled $(BIN)/pytest -n auto --maxprocesses=$(WORKERS_MAX) tests/gateway $(ARGS)

.PHONY: bench-ingest
bench-ingest: ## Measure a million usage records from the spool over RabbitMQ into the ledger (ARGS: options of benchmarks/ingest.py)
	@requirements/install.sh dev
	@$(BIN)/python -m tests.servers.programs
	$(BIN)/python -m benchmarks.ingest $(ARGS)

.PHONY: chaos
chaos: ## kill -9 everything in a loop under load, then check the books (ARGS: options of benchmarks/chaos.py)
	@requirements/install.sh dev
	@$(BIN)/python -m tests.servers.programs
	$(BIN)/python -m benchmarks.chaos $(ARGS)

.PHONY: bench-management
bench-management: ## Measure management reads and writes of 50 clients at once (ARGS: options of benchmarks/management.py)
	@requirements/install.sh dev
	$(BIN)/python benchmarks/management.py $(ARGS)

.PHONY: contracts
contracts: ## Write what is generated from the code: contracts/openapi/*.json and docs/settings.md
	@requirements/install.sh dev
	$(BIN)/python contracts/generate.py

LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml

.PHONY: lock
lock: ## Compile requirements/*.txt again from pyproject.toml (ARGS: --upgrade, --upgrade-package NAME)
	@requirements/install.sh dev
	@export PATH="$$PATH:$(CURDIR)/$(BIN)" && set -ex \
		&& $(LOCK) $(ARGS) -o requirements/runtime.txt \
		&& $(LOCK) $(ARGS) --group dev -c requirements/runtime.txt -o requirements/dev.txt \
		&& uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS) \
			--group bootstrap -o requirements/bootstrap.txt \
		&& $(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["servers"], sep="\n")' \
			| uv pip compile -q --python-version 3.12 --generate-hashes --no-header --no-annotate --no-deps $(ARGS) \
				- -o requirements/servers.txt

.PHONY: clean
clean: ## Remove what was installed and cached here; a platform's data is elsewhere and stays
	rm -rf .venv .install.lock .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
