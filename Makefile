# make demo     a run on this machine that is killed in the middle and finishes all the same
# make test     everything: checks, unit, integration, chaos, simulation, model, and a real cluster
# make check    what to run before each commit: lint, types, unit tests
# make bench    measurements
# make cluster  a kind cluster to play with, operator installed
# make crds     writes crds/ from the models
# make clean    removes what the above left in this folder, and the cluster

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
            $(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
SUITES ?= unit integration chaos simulation model cluster

.PHONY: help demo test check bench cluster crds clean redis cluster-env

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

# What runs Perdure, and what works on it. Each stamp is older than pyproject.toml after it changed.
$(VENV)/bin/python:
	@$(if $(PYTHON),,echo "Perdure needs Python 3.11 or newer on the PATH (or: make PYTHON=/path/to/python)" >&2; exit 1)
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module failed; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.stamp-run: pyproject.toml | $(VENV)/bin/python
	@scripts/install-run $(BIN)/python
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml $(VENV)/.stamp-run | $(VENV)/bin/python
	@echo "installing the tools for development"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

redis:
	@scripts/require-redis

demo: $(VENV)/.stamp-run
	@$(BIN)/perdure run examples/documents/run.yaml --kill-runner --input '{"output": ".perdure/documents"}'
	@$(BIN)/python examples/documents/check.py .perdure/runs/documents/run.json

check: $(VENV)/.stamp-dev redis
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

test: $(VENV)/.stamp-dev redis
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check --no-tests
	@$(if $(filter cluster,$(SUITES)),tests/cluster/env/prepare >/dev/null)
	@PATH="$(CURDIR)/$(BIN):$(if $(filter cluster,$(SUITES)),$$(tests/cluster/env/prepare | sed -n 's/^PERDURE_TOOLS=//p'):)$$PATH" scripts/suites $(SUITES)

cluster-env:
	@tests/cluster/env/prepare >/dev/null

cluster: $(VENV)/.stamp-dev cluster-env
	@PYTHONPATH=tests $(BIN)/python -m cluster.playground

$(VENV)/.stamp-bench: pyproject.toml $(VENV)/.stamp-run | $(VENV)/bin/python
	@echo "installing what is measured beside Perdure"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: $(VENV)/.stamp-bench redis
	@$(BIN)/python -m benchmarks

crds: $(VENV)/.stamp-dev
	@$(BIN)/python -m perdure.control.crd

clean:
	@tests/cluster/env/cluster down perdure 2>/dev/null || true
	rm -rf $(VENV) .perdure .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
