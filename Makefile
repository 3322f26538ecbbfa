# A fresh machine needs two commands: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/installed-gm  ## run the grey-matter grid, small, on this machine; print its tables
	$(BIN)/python jobs/launch.py --grid gm_transfer --preset demo --name demo --site local
	$(BIN)/python jobs/collect.py --grid demo

test: $(VENV)/installed-test  ## run every test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

bench: $(VENV)/installed-bench  ## how fast, beside what else there is; on a machine that does nothing else
	$(BIN)/python benchmarks/bench.py

lint: $(VENV)/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment; results stay
	rm -rf $(VENV)

# One stamp a set of packages; made again when setup.cfg changes.
$(VENV)/installed-gm: EXTRAS := gm
$(VENV)/installed-test: EXTRAS := gm,detection,grading,nnunet,dev
$(VENV)/installed-bench: EXTRAS := gm,detection,grading,bench
$(VENV)/installed-%: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
