# Every target sets up what it needs; `make help` lists them. Three environments: .venv for nearly
# everything, .venv-proto for protoc alone (its protobuf is older than the one we test with),
# .venv-docs for the site.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup java proto proto-check fmt lint types test test-faults test-topologies test-notebooks test-fast check demo notebooks docs bench bench-feed gpu-check histories chaos fuzz kill-writes clean distclean

# The tested version where there is one, else whatever python3 is, if new enough.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(or $(firstword $(foreach p,python3.11 python3,\
    $(shell $p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $p))),python3)
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
DOCS_VENV := .venv-docs
STUBS ?= coordinator/v1

# Spark's executors otherwise start whatever `python3` their PATH finds, without our dependencies.
export PYSPARK_PYTHON := $(CURDIR)/$(BIN)/python
export PYSPARK_DRIVER_PYTHON := $(PYSPARK_PYTHON)

# In front of a command that starts Spark.
WITH_JAVA = JAVA_HOME="$$(tools/ensure-java.sh)"; export JAVA_HOME;

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------------

setup: $(VENV)/.installed  ## create .venv with the pinned dependencies and this package

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call make-venv,$(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt -e '.[spark,tensorflow,dev]'
	@touch $@

$(PROTO_VENV)/.installed: proto/requirements.txt
	$(call make-venv,$(PROTO_VENV))
	$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r proto/requirements.txt
	@touch $@

$(DOCS_VENV)/.installed: docs/requirements.txt
	$(call make-venv,$(DOCS_VENV))
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

java:  ## check for Java 17 or newer; install it on Debian and Ubuntu when root
	@tools/ensure-java.sh >/dev/null

# Debian and Ubuntu ship Python without the ensurepip that `python -m venv` needs.
define make-venv
@if ! $(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
    echo "tflease needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1)." >&2; \
    echo "Name another one with: make PYTHON=/path/to/python3.11 ..." >&2; \
    exit 1; \
fi; \
if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
    package="$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
    if [[ $$(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then \
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$package"; \
    else \
        echo "$(PYTHON) cannot make virtual environments." >&2; \
        echo "On Debian and Ubuntu: sudo apt-get install $$package" >&2; \
        exit 1; \
    fi; \
fi; \
$(PYTHON) -m venv $(1)
endef

# --- the contract ---------------------------------------------------------------------------------

proto: $(PROTO_VENV)/.installed  ## regenerate coordinator/v1 from proto/
	tools/generate-stubs.sh .

proto-check: $(PROTO_VENV)/.installed  ## fail when coordinator/v1 is not what proto/ generates
	@fresh="$$(mktemp -d)"; trap 'rm -rf "$$fresh"' EXIT; \
	tools/generate-stubs.sh "$$fresh"; \
	diff -ru -x __pycache__ $(STUBS) "$$fresh/coordinator/v1" \
	    || { echo "$(STUBS) is stale: run \`make proto\`" >&2; exit 1; }; \
	echo "$(STUBS) is fresh"

# --- checks ---------------------------------------------------------------------------------------

fmt: setup  ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: setup  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy --strict on coordinator and executor_agent
	$(BIN)/mypy

test: java setup  ## the tests, on real Spark and TensorFlow (TEST_ARGS='-k gang -x')
	$(WITH_JAVA) $(BIN)/python -m pytest --ignore tests/spark/topologies \
	    --ignore tests/notebooks/test_execution.py \
	    $(patsubst %,--ignore %,$(FAULTS)) $(TEST_ARGS)

test-topologies: java setup  ## more on Spark: standalone, one slot, encrypted, GPUs, drivers that die; 15 min
	$(WITH_JAVA) $(BIN)/python -m pytest $(TEST_ARGS) tests/spark/topologies

# Clocks that run out and networks that fall silent: what takes real time, and little else.
FAULTS := $(patsubst %,tests/integration/test_%.py,fencing hung_sentinel unkillable networks)

test-faults: setup  ## fences, hung supervisors, dead networks, in real time; 2 min
	$(BIN)/python -m pytest $(TEST_ARGS) $(FAULTS)

test-notebooks: java setup  ## execute the notebooks of examples/mnist, in order; 5 min
	$(WITH_JAVA) $(BIN)/python -m pytest $(TEST_ARGS) tests/notebooks

test-fast: setup  ## the tests without Spark and TensorFlow
	$(BIN)/python -m pytest -m 'not spark and not tensorflow' $(TEST_ARGS)

check: lint types proto-check test test-faults test-topologies test-notebooks  ## every gate

# --- to look at -----------------------------------------------------------------------------------

demo: java setup  ## train on a local Spark cluster of separate executors (KILL=1, DEMO_ARGS=...)
	$(WITH_JAVA) $(BIN)/python -m examples.digits \
	    $(if $(filter-out 0,$(KILL)),--kill-parameter-server-parent) $(DEMO_ARGS)

notebooks: java setup  ## execute them and keep their outputs (NOTEBOOKS='3 4')
	$(WITH_JAVA) $(BIN)/python tools/run-notebooks.py --in-place $(NOTEBOOKS)

docs: $(DOCS_VENV)/.installed  ## build the documentation, strictly: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
	@echo "To search in it as well: python3 -m http.server -d build/site"

bench: java setup  ## measure, about an hour (BENCH_ARGS='startup --repeats 5')
	$(WITH_JAVA) $(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-feed: java setup  ## measure rows/s from Spark into TensorFlow, about 10 min
	$(WITH_JAVA) $(BIN)/python -m benchmarks feed feed-scaling $(BENCH_ARGS)

gpu-check: setup  ## measure leases and claims on an NVIDIA GPU (GPU_CHECK_ARGS='--rounds 5')
	$(BIN)/python -m benchmarks.gpu_check $(GPU_CHECK_ARGS)

histories: setup  ## 10,000 random histories of the book of GPUs, judged by a reference, about 15 min
	TFLEASE_HISTORIES=10000 $(BIN)/python -m pytest -q --timeout 3600 tests/property/test_leases.py

fuzz: setup  ## attack a coordinator with whatever comes to mind, for FUZZ_SECONDS (120)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-120} $(BIN)/python -m pytest tests/fuzz -s $(TEST_ARGS)

kill-writes: setup  ## kill the daemon at every write to its journal, 2 min
	TFLEASE_EVERY_WRITE=1 $(BIN)/python -m pytest tests/integration/daemon/test_kill_at_every_write.py

chaos: java setup  ## the kill matrix, about 35 min (CHAOS_ARGS='--row "worker-*" --repeats 3')
	TFLEASE_CYCLES=200 $(BIN)/python -m pytest -q tests/integration/test_cycles.py
	$(WITH_JAVA) $(BIN)/python -m tests.chaos $(CHAOS_ARGS)

clean:  ## remove caches, build output and what Spark left here
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage htmlcov build dist *.egg-info
	rm -rf artifacts derby.log metastore_db spark-warehouse work
	rm -rf $(VENV)/lib/python*/site-packages/pyspark/work  # where local-cluster keeps its executors
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove all environments
	rm -rf $(VENV) $(PROTO_VENV) $(DOCS_VENV)
