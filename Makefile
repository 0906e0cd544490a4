# esa_notebooks: `make run` sets up everything and runs the study; `make test` runs the tests. `make` alone shows help.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
TORCH ?= requirements/torch.txt
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

# One line per target: the text after ## is its help.
.PHONY: help run run-full test test-full benchmarks lab docs hooks llm lock clean clean-all

help: ## show this help
	@echo "esa_notebooks: every number in a report can be followed to data, code and parameters."
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(READY) ## set up what is missing, execute what has changed, write reports/index.html
	@$(BIN)/esa-notebooks run

run-full: run ## the study, then the whole published table, re-splits and networks (about half an hour)
	@$(BIN)/esa-notebooks run --workflow workflow/full.yaml

test: $(READY) ## lesson cells of the notebooks, then the tests
	@$(BIN)/nbdev-test nbs --skip-folder-re '^(pipeline|tutorials)$$' --n-workers 2
	@$(BIN)/python -m pytest tests -n 2

test-full: $(READY) ## all tests, the slow ones too
	@$(BIN)/nbdev-test nbs --skip-folder-re '^(pipeline|tutorials)$$' --n-workers 2
	@$(BIN)/python -m pytest tests -n 2 -m "slow or not slow"

benchmarks: $(READY) ## measure what benchmarks/ promises (about half an hour); results are written beside each script
	@for script in benchmarks/*/*.py; do echo "== $$script" >&2; $(BIN)/python "$$script" || exit 1; done

lab: $(READY) ## open JupyterLab with the project's kernel
	@JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter" $(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --notebook-dir=. nbs/pipeline/prepare.ipynb

docs: $(READY) ## render every library notebook as a page in _docs/
	@$(BIN)/esa-notebooks docs

hooks: $(READY) ## install the git hooks and nbdev's merge and diff drivers for notebooks
	@$(BIN)/nbdev-install-hooks
	@git config --local merge.jupyternotebook.driver "$(CURDIR)/$(BIN)/nbdev-merge %O %A %B %P"
	@git config --local diff.jupyternotebook.command "$(CURDIR)/$(BIN)/nbdev-diff-driver"
	@printf '#!/bin/sh\nexec "$(CURDIR)/$(BIN)/esa-notebooks" tidy --check\n' > "$$(git rev-parse --git-path hooks)/pre-commit"
	@chmod +x "$$(git rev-parse --git-path hooks)/pre-commit"

llm: $(READY) ## make the language model's environment, .venv-llm, and its embedded model (2.5 GB, a few minutes)
	@$(BIN)/esa-notebooks llm env
	@$(BIN)/esa-notebooks llm model

lock: $(READY) ## resolve the newest compatible versions into requirements/lock.txt
	@UV_DEFAULT_INDEX="$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)"; \
	 [ -z "$$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX; [ -n "$$UV_DEFAULT_INDEX" ] || unset UV_DEFAULT_INDEX; \
	 $(BIN)/uv pip compile --quiet --upgrade pyproject.toml requirements/torch-needs.in --extra dev \
	  --override requirements/overrides.txt --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" --output-file requirements/lock.txt; \
	 for build in "cpu --override requirements/llm-overrides.txt" gpu; do $(BIN)/uv pip compile --quiet --upgrade \
	  requirements/llm-$${build%% *}.in $${build#$${build%% *}} --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
	  --output-file requirements/llm-$${build%% *}.txt; done

clean: ## remove what runs made: reports, interim and processed data, caches
	@[ ! -f data/interim/llm/service.json ] || $(BIN)/esa-notebooks llm down
	@find reports -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	@rm -rf data/interim data/processed _docs _proc .pytest_cache .ruff_cache .snakemake
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

clean-all: clean ## and the environment and the obtained data
	@chmod -R u+w data/raw 2>/dev/null || true; rm -rf .venv .venv-llm data/raw mlflow.db mlruns

# The environment is made when it is missing or a lock changed. The mark of readiness comes last, so that an interrupted
# set-up is never taken for a finished one.
$(READY): requirements/lock.txt $(TORCH) pyproject.toml
	@[ "$$(uname -s)-$$(uname -m)" = "Linux-x86_64" ] || { echo "esa_notebooks needs Linux on x86-64; this is $$(uname -s) on $$(uname -m)." >&2; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed, and there is no $(PYTHON) here." >&2; \
	  echo "Install it (Debian 12: apt-get install python3.11-venv; conda: conda env create -f environment.yml), or name one: make run PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version); Python 3.11 is needed. Name one: make run PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up .venv from the lock (about 2 GB, a few minutes) …" >&2
	@rm -f $(READY); [ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "  1/3 the locked packages, each checked by its hash" >&2
	@$(PIP) --no-deps --require-hashes -r requirements/lock.txt
	@echo "  2/3 torch, from $(TORCH)" >&2
	@$(PIP) -r $(TORCH)
	@echo "  3/3 this project" >&2
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip --disable-pip-version-check check >&2
	@touch $@
