# Every target of the project; `make help` lists them. CI runs `make check check-deploy chaos test`.

PYTHON ?= python3
VENV := .venv
GENERATE_VENV := .venv-generate
FLOOR_VENV := .venv-floor
DEPLOY_VENV := .venv-deploy
SECURITY_VENV := .venv-security
BIN := $(VENV)/bin
# Tests start PostgreSQL by fork and exec where gRPC is at work, whose handlers of a fork would start threads in the child
# that abort it. It reads this when it is loaded, which a plugin of pytest does before the service can say so.
export GRPC_ENABLE_FORK_SUPPORT := 0
PIP_FLAGS := --quiet --disable-pip-version-check --require-hashes
# Compiling takes longer than installing, and of a tool each run needs but a part: Python compiles that when it comes to it.
TOOL_PIP_FLAGS := $(PIP_FLAGS) --no-compile
SERVICE_PROTOS := $(wildcard protos/modelcatalog/v1/*_service.proto)
PROTOS := $(wildcard protos/modelcatalog/v1/*.proto)
SECURITY_TESTS := tests/unit/test_validation.py tests/integration/test_fuzz.py tests/integration/test_hostile_upstream.py \
  tests/acceptance/test_leaks.py tests/contract/test_server_identity.py tests/contract/test_server_reasons.py tests/acceptance/test_identity.py \
  tests/integration/test_tls.py tests/unit/test_requirements.py tests/unit/test_threat_model.py

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

$(DEPLOY_VENV)/.done: requirements/deploy.txt
	@test -x $(DEPLOY_VENV)/bin/python || $(PYTHON) -m venv $(DEPLOY_VENV)
	@echo "installing what checks the manifests into $(DEPLOY_VENV)"
	@$(DEPLOY_VENV)/bin/python -m pip install $(TOOL_PIP_FLAGS) -r requirements/deploy.txt
	@touch $@

$(SECURITY_VENV)/.done: requirements/security.txt
	@test -x $(SECURITY_VENV)/bin/python || $(PYTHON) -m venv $(SECURITY_VENV)
	@echo "installing the pinned tools of security into $(SECURITY_VENV)"
	@$(SECURITY_VENV)/bin/python -m pip install $(TOOL_PIP_FLAGS) -r requirements/security.txt
	@touch $@

# All three at once: each mostly waits for the network and the disk.
.PHONY: setup
setup: ## Make the environments with everything pinned.
	@$(MAKE) --no-print-directory -j3 $(VENV)/.dev $(GENERATE_VENV)/.done $(FLOOR_VENV)/.done

.PHONY: requirements
requirements: ## Resolve requirements/*.in again (needs uv on the path).
	@for name in server tracing run dev generate floor deploy security; do \
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
	@$(BIN)/buf build protos --as-file-descriptor-set --exclude-source-info -o protos/baseline.binpb

.PHONY: verify
verify: setup ## Generate all code again and fail if a committed file differs.
	@tools/generate --check

.PHONY: generate
generate: setup ## Generate generated/ from protos/, and the client's blocking side from its async one.
	@tools/generate

# -c: the settings of the suite are for plugins that are not there.
.PHONY: check-deploy
check-deploy: $(DEPLOY_VENV)/.done ## The image's recipe, the compose file and the Kubernetes manifests, without a cluster.
	@$(DEPLOY_VENV)/bin/hadolint Dockerfile
	@$(DEPLOY_VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@$(DEPLOY_VENV)/bin/pytest --quiet -c /dev/null --rootdir . --noconftest -p no:cacheprovider tests/deployment

PROMTOOL ?= promtool

.PHONY: check-alerts
check-alerts: ## Unit tests of the rules of Prometheus. Needs promtool, of Debian's package prometheus; PROMTOOL=path for another.
	@command -v $(PROMTOOL) >/dev/null || { echo "promtool is missing: apt-get install prometheus, or PROMTOOL=path" >&2; exit 1; }
	@$(PROMTOOL) check rules deploy/prometheus/rules/*.yaml
	@$(PROMTOOL) test rules deploy/prometheus/tests/*.yaml

.PHONY: fix
fix: $(VENV)/.dev ## Format and mend what can be mended.
	@$(BIN)/buf format --write protos
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# --- tests ------------------------------------------------------------------------------------------------------

# With ARGS only what they choose, in one process: so that -s and --pdb work, and one test is not waited for.
# Without, on three processes, each with a PostgreSQL and a Valkey of its own: two cores are busy then though some tests
# wait. worksteal keeps the tests of a module, and so its servers, together as long as all have work.
.PHONY: test
test: $(VENV)/.dev $(if $(ARGS),,test-floor) ## The whole suite, against a real PostgreSQL and Valkey that it starts. ARGS="-k watch" for some.
	@$(BIN)/pytest $(if $(ARGS),$(ARGS),-n 3 --dist worksteal)

# --noconftest: the service's fixtures need the service, which is not there. These tests wait rather than compute.
.PHONY: test-floor
test-floor: $(FLOOR_VENV)/.done ## The client's tests on the oldest versions that it allows.
	@PYTHONPATH=client:generated $(FLOOR_VENV)/bin/pytest --quiet --noconftest -p no:cacheprovider -n 4 \
	  tests/unit/test_client_*.py tests/contract/test_client_*.py

# The suite draws the same each time (tests/seeds.py), these draw anew.
DRAWN := $(shell date +%s)

.PHONY: test-kill
test-kill: $(VENV)/.dev ## Kill servers in the middle of refreshes, 200 of them; the suite kills 50. KILLS=1000, KILL_SEED=7 to repeat.
	@KILLS=$(or $(KILLS),200) KILL_SEED=$(or $(KILL_SEED),$(DRAWN)) $(BIN)/pytest -s tests/acceptance/test_kill.py

.PHONY: chaos
chaos: $(VENV)/.dev ## Kill, freeze, cut and slow everything under load for two minutes. MINUTES=30, CHAOS_SEED=7 to repeat, ARGS=--json for programs.
	@PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(or $(MINUTES),2) --seed $(or $(CHAOS_SEED),$(DRAWN)) $(ARGS)

.PHONY: fuzz-filter
fuzz-filter: $(VENV)/.dev ## 100,000 random filters: each is understood or refused as INVALID_FILTER. SEED=7 to repeat.
	@echo SEED=$(or $(SEED),$(DRAWN))
	@FUZZ_FILTERS=100000 SEED=$(or $(SEED),$(DRAWN)) $(BIN)/pytest --quiet --timeout=600 tests/unit/test_filter_fuzz.py $(ARGS)

# What of the suite is about harm, with the fuzz at full size and its figures printed. FUZZ_SEED=7 to send the same again.
.PHONY: security
security: $(VENV)/.dev bandit ## 100,000 requests of a fuzz against a real server, and every other test of security. FUZZ_SEED=7 to repeat.
	@FUZZ_REQUESTS=$(or $(FUZZ_REQUESTS),100000) FUZZ_SEED=$(or $(FUZZ_SEED),$(DRAWN)) $(BIN)/pytest -q -s --timeout=1800 $(SECURITY_TESTS)

.PHONY: bandit
bandit: $(SECURITY_VENV)/.done ## Look for what is known to be dangerous in the code.
	@$(SECURITY_VENV)/bin/bandit --quiet --recursive --configfile pyproject.toml server client tools

.PHONY: audit
audit: bandit ## What is known against the pinned requirements; asks pypi.org, so it is no part of `make check`. AUDIT_SERVICE=osv asks osv.dev.
	@$(SECURITY_VENV)/bin/python tools/audit.py --service $(or $(AUDIT_SERVICE),pypi) requirements/server.txt requirements/floor.txt

.PHONY: sbom
sbom: $(SECURITY_VENV)/.done ## What the service is made of, as CycloneDX, in build/sbom.cdx.json.
	@mkdir -p build
	@$(SECURITY_VENV)/bin/python -W ignore -m cyclonedx_py requirements requirements/server.txt --pyproject pyproject.toml \
	  --output-reproducible --of JSON -o build/sbom.cdx.json
	@echo "build/sbom.cdx.json has $$(grep -c '"bom-ref"' build/sbom.cdx.json) components"

.PHONY: test-image
test-image: ## Replay the Dockerfile in a bare Debian and try what comes out. Needs root, debootstrap, a registry; 3 minutes.
	@$(PYTHON) tools/replay_image.py

.PHONY: bench-load
bench-load: $(VENV)/.server ## How long a refresh takes, from body received to committed.
	@$(BIN)/python bench/load.py

.PHONY: bench-refresh
bench-refresh: $(VENV)/.server ## What a refresh costs by what changed: time, event loop, memory. ARGS="--sizes 1" for a part.
	@$(BIN)/python bench/refresh.py $(ARGS)

.PHONY: bench-query
bench-query: $(VENV)/.dev ## What a read costs without any cache, at 1, 10 and 100 times the catalog. ARGS="--sizes 1" for a part.
	@$(BIN)/python bench/query.py $(ARGS)

.PHONY: bench-capacity
bench-capacity: $(VENV)/.server ## What the catalog takes on disk at 1 and 10 times the size, and how its history grows.
	@$(BIN)/python bench/capacity.py

.PHONY: bench
bench: $(VENV)/.server ## What cached reads cost, beside a bare server and peers. Needs nghttp2-client. ARGS="throughput" for a part.
	@$(BIN)/python bench/serve.py $(ARGS)

.PHONY: report-resolver
report-resolver: $(VENV)/.server ## How well the resolver finds known links to canonical models, and what it misses.
	@$(BIN)/python tools/report_resolver.py

.PHONY: clean
clean: ## Remove the environments and caches. The data directory stays.
	rm -rf $(VENV) $(GENERATE_VENV) $(FLOOR_VENV) $(DEPLOY_VENV) $(SECURITY_VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
