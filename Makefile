# Every target of the project; `make help` lists them. What CI runs is `make check` and `make test`.

PYTHON ?= python3
VENV := .venv
GENERATE_VENV := .venv-generate
FLOOR_VENV := .venv-floor
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check --require-hashes
# Compiling takes longer than installing, and of a tool each run needs but a part: Python compiles that when it comes to it.
TOOL_PIP_FLAGS := $(PIP_FLAGS) --no-compile
SERVICE_PROTOS := $(wildcard protos/modelcatalog/v1/*_service.proto)
PROTOS := $(wildcard protos/modelcatalog/v1/*.proto)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- environments -----------------------------------------------------------------------------------------------

$(VENV)/.server: requirements/run.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements into $(VENV)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	@echo "installing the pinned development requirements into $(VENV)"
	@$(BIN)/python -m pip install $(TOOL_PIP_FLAGS) -r requirements/dev.txt
	@touch $@

$(GENERATE_VENV)/.done: requirements/generate.txt
	@test -x $(GENERATE_VENV)/bin/python || $(PYTHON) -m venv $(GENERATE_VENV)
	@echo "installing the pinned code generator into $(GENERATE_VENV)"
	@$(GENERATE_VENV)/bin/python -m pip install $(TOOL_PIP_FLAGS) -r requirements/generate.txt
	@touch $@

$(FLOOR_VENV)/.done: requirements/floor.txt
	@test -x $(FLOOR_VENV)/bin/python || $(PYTHON) -m venv $(FLOOR_VENV)
	@echo "installing the oldest versions that the client allows into $(FLOOR_VENV)"
	@$(FLOOR_VENV)/bin/python -m pip install $(TOOL_PIP_FLAGS) -r requirements/floor.txt
	@touch $@

# All three at once: each mostly waits for the network and the disk.
.PHONY: setup
setup: ## Make the environments with everything pinned.
	@$(MAKE) --no-print-directory -j3 $(VENV)/.dev $(GENERATE_VENV)/.done $(FLOOR_VENV)/.done

.PHONY: requirements
requirements: ## Resolve requirements/*.in again (needs uv on the path).
	@for name in server run dev generate floor; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	    --custom-compile-command 'make requirements' requirements/$$name.in -o requirements/$$name.txt; done

# --- running ----------------------------------------------------------------------------------------------------

.PHONY: run
run: $(VENV)/.server ## Serve the catalog with its own PostgreSQL and Valkey. ARGS="--listen 127.0.0.1:50052" for flags.
	@exec $(BIN)/modelcatalog serve $(ARGS)

# --- checking ---------------------------------------------------------------------------------------------------

.PHONY: check
check: setup ## Everything but the tests: format, lint, types, layers, protos, generated code.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy server client tools tests
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory check-protos verify

.PHONY: check-protos
check-protos: $(VENV)/.dev ## Lint and format of the protos, and that nothing breaks callers of the baseline.
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code protos
	@$(BIN)/buf breaking protos --against protos/baseline.binpb

.PHONY: baseline
baseline: check-protos ## Add what is new in the contract to what must not break; refuses to forget anything.
	@$(BIN)/buf build protos --as-file-descriptor-set -o protos/baseline.binpb

.PHONY: verify
verify: setup ## Generate all code again and fail if a committed file differs.
	@tools/generate --check

.PHONY: generate
generate: setup ## Generate generated/ from protos/, and the client's blocking side from its async one.
	@tools/generate

.PHONY: fix
fix: $(VENV)/.dev ## Format and mend what can be mended.
	@$(BIN)/buf format --write protos
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# --- tests ------------------------------------------------------------------------------------------------------

# With ARGS only what they choose, in one process: so that -s and --pdb work, and one test is not waited for.
# Without, on two processes, each with a PostgreSQL and a Valkey of its own; worksteal keeps the tests of a module,
# and so its servers, together as long as both have work.
.PHONY: test
test: $(VENV)/.dev $(if $(ARGS),,test-floor) ## The whole suite, against a real PostgreSQL and Valkey that it starts. ARGS="-k watch" for some.
	@$(BIN)/pytest $(if $(ARGS),$(ARGS),-n 2 --dist worksteal)

# --noconftest: the service's fixtures need the service, which is not there. These tests wait rather than compute.
.PHONY: test-floor
test-floor: $(FLOOR_VENV)/.done ## The client's tests on the oldest versions that it allows.
	@PYTHONPATH=client:generated $(FLOOR_VENV)/bin/pytest --quiet --noconftest -p no:cacheprovider -n 4 \
	  tests/unit/test_client_*.py tests/contract/test_client_*.py

.PHONY: test-kill
test-kill: $(VENV)/.dev ## Kill servers in the middle of refreshes, 200 of them; the suite kills 50. KILLS=1000, KILL_SEED=7 to repeat.
	@KILLS=$(or $(KILLS),200) $(BIN)/pytest -s tests/acceptance/test_kill.py

.PHONY: fuzz-filter
fuzz-filter: $(VENV)/.dev ## 100,000 random filters: each is understood or refused as INVALID_FILTER. ARGS=-s shows the seed.
	@FUZZ_FILTERS=100000 $(BIN)/pytest --quiet --timeout=600 tests/unit/test_filter_fuzz.py $(ARGS)

.PHONY: bench-load
bench-load: $(VENV)/.server ## How long a refresh takes, from body received to committed.
	@$(BIN)/python bench/load.py

.PHONY: bench-refresh
bench-refresh: $(VENV)/.server ## What a refresh costs by what changed: time, event loop, memory. ARGS="--sizes 1" for a part.
	@$(BIN)/python bench/refresh.py $(ARGS)

.PHONY: bench-query
bench-query: $(VENV)/.dev ## What a read costs without any cache, at 1, 10 and 100 times the catalog. ARGS="--sizes 1" for a part.
	@$(BIN)/python bench/query.py $(ARGS)

.PHONY: report-resolver
report-resolver: $(VENV)/.server ## How well the resolver finds known links to canonical models, and what it misses.
	@$(BIN)/python tools/report_resolver.py

.PHONY: clean
clean: ## Remove the environments and caches. The data directory stays.
	rm -rf $(VENV) $(GENERATE_VENV) $(FLOOR_VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
