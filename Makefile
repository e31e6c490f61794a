# Needs only make and Python 3.11 or newer: the first target that wants it makes .venv and
# installs the versions pinned in requirements/. `make` alone lists the targets.

PYTHON ?= python3
UV ?= uv

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two installations must not write into one environment at a time
.PHONY: help demo test test-slow test-pure test-newest test-torch sanitize fuzz lint bench lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 make ...   another interpreter (after make clean)"

# The native kernel, built anew when its source is newer; without a C++ compiler there is none.
LIBRARY := jlstm/kernels/libnative.so

demo: $(VENV)/.demo $(LIBRARY) ## train a language model on real text and show what it learnt
	$(BIN)/jlstm demo

# A file's tests go to one process, which makes what they share once.
PYTEST := -m pytest -q -n auto --maxprocesses 8 --dist loadfile
test: $(VENV)/.dev $(LIBRARY) ## run the tests that go with every change
	$(BIN)/python $(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev $(LIBRARY) ## run the tests that take many seconds each
	$(BIN)/python $(PYTEST) -m slow

test-pure: $(VENV)/.dev ## run the tests of what has a native kernel without it
	JLSTM_NATIVE=0 $(BIN)/python $(PYTEST) -m "not slow" \
		tests/test_kernels.py tests/test_layers.py tests/test_sequence.py

# An environment of its own, resolved anew: what a user of today gets, where `make test` has what is
# locked. Without what needs other people's LSTMs, notebooks or benchmarks; and without what computes
# for minutes by the same parts of other packages as the rest.
NEWEST := .venv-newest
LONG := $(addprefix --deselect=tests/, test_local.py test_variants.py test_variants_random.py \
	runs/test_origin.py runs/test_search.py)
test-newest: ## run the tests of all that uses JAX on the newest Python at hand, with the newest packages
	$$(.ci/newest-python $(PYTHON)) -m venv --clear $(NEWEST)
	@echo "Installing the newest packages for $$($(NEWEST)/bin/python --version) into $(NEWEST)."
	@$(NEWEST)/bin/python -m pip --disable-pip-version-check install --quiet \
		--editable '.[all,demo,tensorboard]' hypothesis pytest pytest-xdist
	@$(NEWEST)/bin/python -m pip --disable-pip-version-check list | grep -E '^(jax|jaxlib|numpy|optax|orbax-checkpoint) '
	$(NEWEST)/bin/python $(PYTEST) -m "not slow" $(LONG) tests/test_[!bhnr]*.py tests/test_native.py \
		tests/train tests/tasks tests/runs tests/cli

# PyTorch is as large as all else together, so it has an environment of its own, with JAX as locked.
TORCH ?= torch==2.13.0
TORCH_VENV := .venv-torch
test-torch: $(TORCH_VENV)/.made ## run the tests of what goes to and from PyTorch with PyTorch
	JLSTM_NATIVE=0 $(TORCH_VENV)/bin/python -m pytest -q tests/interop/test_torch.py \
		tests/test_golden.py::test_torch_still_gives_the_golden_values \
		"tests/test_docs.py::test_the_page_runs_as_pasted[from_pytorch]" \
		tests/test_docs.py::test_torch_refuses_length_0_and_gives_0_at_padding
	JLSTM_NATIVE=0 $(TORCH_VENV)/bin/python -m pytest -q tests/cli/test_export.py -k torch

$(TORCH_VENV)/.made: pyproject.toml requirements/dev.lock
	$(PYTHON) -m venv --clear $(TORCH_VENV)
	@echo "Installing PyTorch into $(TORCH_VENV); the first time takes a minute or more."
	@$(TORCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(TORCH)
	@JLSTM_NATIVE=0 $(TORCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint requirements/dev.lock --editable '.[all]' hypothesis packaging pytest
	@touch $@

sanitize: $(VENV)/.dev ## run the native kernel's own test, optimised and with sanitizers (needs a C++ compiler)
	$(BIN)/python -m tests.cpp.sanitize

ATHERIS ?= atheris==3.0.0
FUZZ ?= -max_total_time=60 -max_len=8192
fuzz: $(VENV)/.dev ## feed damaged files to what reads files, for a minute (installs atheris)
	@$(PIP) install --quiet $(ATHERIS)
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/.dev ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

BENCH ?= --shapes small --seconds 5
bench: $(VENV)/.bench $(LIBRARY) ## time jlstm against its peers (BENCH="--shapes all": at every shape)
	@mkdir -p runs
	$(BIN)/python -m tests.benchmarks --json runs/benchmarks.json --plot runs/benchmarks.png $(BENCH)

# Versions already locked stay as they are unless asked: `make lock LOCKFLAGS=--upgrade`.
# One version of each package for all Pythons and systems, and the same one in all files.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCKFLAGS)

lock: ## pin the dependencies anew (needs uv)
	$(COMPILE) --extra dev --group build --output-file requirements/dev.lock pyproject.toml
	$(COMPILE) --extra all --extra demo --group build --constraint requirements/dev.lock \
		--no-annotate --output-file requirements/demo.lock pyproject.toml
	$(COMPILE) --extra bench --group build --constraint requirements/dev.lock \
		--output-file requirements/bench.lock pyproject.toml

clean: ## remove the environment, the caches and what was built
	rm -rf $(VENV) $(NEWEST) $(TORCH_VENV) $(LIBRARY)* build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find jlstm tests notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# An environment is whole only while .made stands: an installation takes it away first and puts
# it back last, so one that was interrupted is begun again from nothing.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "jlstm needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: requirements/demo.lock
$(VENV)/.demo: COMPILED := --no-compile # to bytecode in advance, which takes more than half of the time
$(VENV)/.dev: requirements/dev.lock
$(VENV)/.bench: requirements/bench.lock

$(VENV)/.demo $(VENV)/.dev $(VENV)/.bench: pyproject.toml | $(VENV)/.made
	@rm -f $(VENV)/.made
	@echo "Installing $(filter %.lock,$^) into $(VENV); the first time takes up to a minute."
	@$(PIP) install --quiet $(COMPILED) --requirement $(filter %.lock,$^)
	@JLSTM_NATIVE=0 $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.made $@

$(LIBRARY): hatch_build.py $(wildcard jlstm/kernels/cpp/*)
	@$(BIN)/python hatch_build.py
