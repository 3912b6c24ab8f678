# Two commands for users, `make quickstart` and `make test`; the rest is for those who work on brevq.
# Each makes .venv if it is missing and installs what it needs; a second run installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-
OUT ?= quickstart-out

# One set of packages for each purpose, pinned by constraints.txt.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What `make bench` is told, such as ARGS="--quick --only GPT".
ARGS ?=

.PHONY: help quickstart test lint docs linkcheck notebooks bench bench-peers clean

help:
	@echo "make quickstart   train and quantize a small network on real digits (under 3 minutes)"
	@echo "make test         run all tests, examples and notebooks"
	@echo "make lint         check style and types"
	@echo "make docs         build the documentation"
	@echo "make linkcheck    follow its links to other sites (needs the internet)"
	@echo "make notebooks    run the notebooks again and keep their outputs"
	@echo "make bench        measure speed and memory (ARGS=--quick for the table alone)"
	@echo "make bench-peers  install what it compares with, once"

quickstart: $(STAMP)demo
	$(BIN)/python -m brevq quickstart --out $(OUT)

test: $(STAMP)test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(STAMP)dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)dev
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

linkcheck: $(STAMP)dev
	$(BIN)/sphinx-build -b linkcheck docs docs/_build/linkcheck

notebooks: $(STAMP)test
	$(BIN)/python notebooks/execute.py

bench: $(STAMP)cli
	$(BIN)/python -m benchmarks $(ARGS)

# The other libraries need other versions of what brevq needs, so they live apart.
bench-peers:
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 brevitas==0.13.4 torchao==0.18.0

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and by itself: pinned, so that no other build is taken for a range that admits it.
$(STAMP)torch: $(BIN)/python constraints.txt
	$(INSTALL) torch
	@touch $@

$(STAMP)%: $(STAMP)torch setup.cfg pyproject.toml
	$(INSTALL) --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-inject build *.egg-info docs/_build $(OUT)
