# HabitLab: `make report` makes every analysis again as HTML, `make test` checks everything. `make` alone lists the goals.
#
# Without PYTHON=..., everything runs in .venv, made from requirements.lock. With `make report PYTHON=python` the
# Python of your own (say, conda's) environment is used as it is.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
STAMP := $(VENV)/.made-from-lock
DATA := data/habittrack.db
OUT := reports
JOBS := $(shell nproc 2>/dev/null || echo 2)
BOOTSTRAP_PYTHON := python3
# Compiled modules make every notebook start four times faster.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ifdef PYTHON
  READY :=
else
  PYTHON := $(VENV)/bin/python
  READY := $(STAMP)
endif
HABITLAB := $(PYTHON) -m habitlab

.PHONY: help setup report report-one lab notebooks test verify lint bench data clean lock

help:  ## List the goals
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv from the lock (a few seconds; again only when the lock changes)

$(STAMP): requirements.lock pyproject.toml
	@$(BOOTSTRAP_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "HabitLab needs Python 3.11 or newer; name one with BOOTSTRAP_PYTHON=python3.12" >&2; exit 2; }
	@test -x $(VENV)/bin/python || $(BOOTSTRAP_PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "Python's venv module is missing: on Debian, apt-get install python3-venv" >&2; exit 2; }
	@test -x $(VENV)/bin/uv || { awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock > $(VENV)/uv.lock \
	  && $(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement $(VENV)/uv.lock; }
	$(VENV)/bin/uv pip sync --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

data: $(DATA)  ## Make the built-in simulated population (2,000 users, 180 days)

$(DATA): $(wildcard habitlab/simulation/*.py) $(addprefix habitlab/dataset/,schema.py vocabulary.py derived.py sqlite.py catalogue.py catalogue.csv) | $(READY)
	$(HABITLAB) simulate --out $(DATA)

report: $(READY) $(DATA)  ## Make every report that is out of date: reports/index.html
	$(HABITLAB) report --data $(DATA) --out $(OUT) --jobs $(JOBS)

report-one: $(READY) $(DATA)  ## Make one report: make report-one NAME=03
	@test -n "$(NAME)" || { echo "say which: make report-one NAME=03" >&2; exit 2; }
	$(HABITLAB) report $(NAME) --data $(DATA) --out $(OUT) --jobs $(JOBS)

lab: $(READY) $(DATA)  ## Explore in JupyterLab
	$(PYTHON) -m jupyterlab notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

notebooks: $(READY)  ## Run the notebooks on the sample and bring them into their canonical form
	$(HABITLAB) notebooks

test: $(READY)  ## Run the tests that take minutes at most
	$(PYTHON) -m pytest -m "not long"
	$(PYTHON) -m pytest --nbval-lax --nbval-current-env --dist loadfile notebooks

verify: $(READY)  ## Run the long checks: many seeds, kills, a clean clone
	$(PYTHON) -m pytest -m long --dist loadgroup --timeout 900

lint: $(READY)  ## Check style, types and the direction of imports
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

bench: $(READY) $(DATA)  ## Run every benchmark and print the ratios
	@for name in open_dataset simulation streaks report_build features factorise fit_success recommend_all recommend_one metrics tuning serving batch; do \
	  echo "== benchmarks/$$name.py"; $(PYTHON) benchmarks/$$name.py || exit 1; done

lock:  ## Pin the newest allowed versions in requirements.lock
	$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra dev pyproject.toml --output-file requirements.lock

clean:  ## Remove reports, data, caches and .venv
	rm -rf $(OUT) $(VENV) data/*.db data/*.parquet data/*.service .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
