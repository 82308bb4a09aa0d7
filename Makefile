# `make` sets up everything below .venv; `make help` says what else there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := setup
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
# Written last by the set-up, so that a set-up that was interrupted is taken up again.
STAMP := .venv/.installed
INSTALLED_FROM := pyproject.toml localcluster/pyproject.toml $(wildcard constraints/*.txt)

CLUSTER ?= local
NAME ?= local
# Where CLUSTER=current pulls its images from.
REGISTRY ?=
ROWS ?=
SECONDS ?= 600
# With SLOW=1, the tests of faults run those of their cases too that would take CI too long.
SLOW ?=
CHART := charts/opengpu-operator
OPERATOR_IMAGE := localhost/opengpu-operator:dev
AGENT_IMAGE := localhost/opengpu-agent:dev

# kompose, kubectl and helm are on the path of everything that make starts.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

##@ Start here
.PHONY: setup demo demo-down test help
setup: $(STAMP) programs ## Set up .venv with all programs (the default)
	@echo "Ready: $(BIN)/opengpu, $(BIN)/localcluster, $(BIN)/kubectl. 'make help' lists what make can do."

demo: $(STAMP) programs ## Show it: cluster, operator, tasks on cpu, nvidia and amd [CLUSTER=local|kind|current REGISTRY=]
	@python -m demo.run up --cluster $(CLUSTER) --name $(NAME) $(if $(REGISTRY),--registry $(REGISTRY))

demo-down: $(STAMP) programs ## Remove what the demo made [CLUSTER=local|kind|current]
	@python -m demo.run down --cluster $(CLUSTER) --name $(NAME)

STAGES := lint test-unit test-property test-contract test-chart test-controlplane test-faults test-e2e test-demo
test: $(STAMP) programs ## Run all tests on a real cluster, lint first [SLOW=1 for more crashes]
	@start=$$SECONDS; for stage in $(STAGES); do \
	  echo "=== $$stage"; from=$$SECONDS; \
	  $(MAKE) $$stage || { echo "=== $$stage failed after $$((SECONDS - from)) s"; exit 1; }; \
	  echo "=== $$stage passed in $$((SECONDS - from)) s"; \
	done; echo "=== all passed in $$((SECONDS - start)) s"

help: ## Print this
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Tests, one stage each
.PHONY: lint test-unit test-property test-contract test-chart test-controlplane test-faults test-e2e test-demo
lint: $(STAMP) programs ## Formatting, style, types, layers, dependencies, generated files, chart, shell
	@ruff format --check || { echo "Not formatted; run 'make format'"; exit 1; }
	@ruff check --quiet
	@mypy
	@lint-imports --no-logo
	@deptry operator
	@python -m opengpu_operator.api.generate crds --docs docs/reference/api.md --check
	@python charts/generate.py --check
	@helm lint --strict --quiet $(CHART)
	@shellcheck .ci/run constraints/update kompose/licenses

test-unit: $(STAMP) programs ## Parts on their own
	@pytest -q tests/unit

test-property: $(STAMP) programs ## What holds for any input
	@pytest -q tests/property

test-contract: $(STAMP) programs ## Models, schemas and files that must agree
	@pytest -q tests/contract

test-chart: $(STAMP) programs ## The Helm chart, rendered over a matrix of values
	@pytest -q tests/chart

test-controlplane: $(STAMP) programs ## Against a real API server without nodes
	@pytest -q tests/controlplane

test-faults: $(STAMP) programs ## Crashes, lost writes and cut connections [SLOW=1]
	@pytest -q $(if $(SLOW),,-m "not slow") tests/faults

test-e2e: $(STAMP) programs ## On the whole local cluster [SLOW=1 for the loss of a node]
	@pytest -q $(if $(SLOW),,-m "not slow") tests/e2e

# After the others: it removes images that they use, and has the machine to itself.
test-demo: $(STAMP) programs ## make demo and make demo-down, on a cluster of their own
	@pytest -q tests/demo

##@ Work on it
.PHONY: format generate images bench fuzz constraints licenses clean
format: $(STAMP) ## Format, and mend what can be mended
	@ruff format --quiet
	@ruff check --quiet --fix

generate: $(STAMP) ## Write what is made from the models: crds/, the chart's schema, docs/reference
	@python -m opengpu_operator.api.generate crds --docs docs/reference/api.md
	@python charts/generate.py

images: $(STAMP) programs ## Build the operator's and the agent's image with buildah
	@mkdir -p build && cp -L $(BIN)/kompose build/kompose
	@localcluster build -t $(OPERATOR_IMAGE) --target operator --build-arg KOMPOSE=prebuilt .
	@localcluster build -t $(AGENT_IMAGE) --target agent .

bench: $(STAMP) programs ## Measure, each figure against a reference of the same run [ROWS=pattern]
	@python -m tests.bench $(if $(ROWS),'$(ROWS)')

fuzz: $(STAMP) ## Feed the translator with whatever libFuzzer thinks of [SECONDS=600]
	@python -m pip install --quiet -c constraints/dev.txt --group fuzz
	@python -m tests.fuzz --seconds $(SECONDS)

constraints: ## Pin the newest versions of everything that is installed
	@constraints/update $(PYTHON)

licenses: $(STAMP) programs ## Collect the licences of what is linked into kompose (needs Go)
	@kompose/licenses $(BIN)/kompose

clean: ## Remove .venv and what was built (not the cluster: 'make demo-down')
	@rm -rf .venv build dist

# ---------------------------------------------------------------------------------------------------------------------
.PHONY: programs
$(STAMP): $(INSTALLED_FROM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is needed: apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet -c constraints/build.txt pip
	@$(BIN)/python -m pip install --quiet -c constraints/dev.txt --build-constraint constraints/build.txt \
	  -e '.[s3]' -e ./localcluster --group dev
	@touch $@

programs: $(STAMP)
	@built=$$(localcluster binaries kompose kubectl helm | tail -n 1); \
	for program in kompose kubectl helm; do ln -sf "$$built/$$program" $(BIN)/$$program; done
