# Two commands set everything up: `make demo` and `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# Every program here runs one thread per client; BLAS pools beside them only get in the way.
export MPLBACKEND ?= Agg

# Tests run side by side, in one process per core; BY_FILE keeps those of a file in one process.
BY_FILE = -n $(WORKERS) --dist loadfile
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

.PHONY: help demo lab coursework grade formgrader feedback test unit widgets7 slow notebooks assignments lint browser bench mutants clean

help:
	@echo "make demo       install into .venv, then FedAvg, FedRep and FedeCouple on real digits (figures in runs/demo/)"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make coursework the students' notebooks from the masters in notebooks/assignments/, checked"
	@echo "make grade FOLDER=...         grade submissions: points, feedback, a table"
	@echo "make formgrader               grade by hand what waits for it, in nbgrader's pages"
	@echo "make feedback ASSIGNMENT=...  feedback anew, after what is graded by hand"
	@echo "make test       every check: lint, types, unit tests, widgets on Colab's ipywidgets, random cases, notebooks"
	@echo "make browser    the widgets clicked in JupyterLab; needs Chromium, not part of make test"
	@echo "make bench      speed, as ratios to a bare training loop"
	@echo "make mutants    would the tests notice? 300 small changes of the library, one at a time"
	@echo "make clean      remove .venv, runs/ and caches (downloaded data stays)"

# Made once, refreshed only when pyproject.toml changes. torch and torchvision come together from one place.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedecouple-lite needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	@echo "Installing PyTorch and friends into $(VENV): some minutes and about 5 GB the first time ..."
	$(PY) -m pip install --quiet --progress-bar on -e ".[umap,lab,dev]"
	@touch $@

demo: $(VENV)/.ready
	$(PY) -m fedecouple_lite demo

lab: $(VENV)/.ready
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

# nbgrader, which only coursework needs.
$(VENV)/.coursework: $(VENV)/.ready
	$(PY) -m pip install --quiet -e ".[coursework]"
	@touch $@

coursework: $(VENV)/.coursework
	$(PY) -m fedecouple_lite coursework

grade: $(VENV)/.coursework
	@test -n "$(FOLDER)" || { echo "make grade FOLDER=path/to/submissions"; exit 2; }
	$(PY) -m fedecouple_lite grade "$(FOLDER)" $(ARGS)

formgrader: $(VENV)/.coursework
	cd notebooks/assignments && PATH="$(CURDIR)/$(BIN):$$PATH" jupyter lab --ServerApp.default_url=/formgrader

feedback: $(VENV)/.coursework
	@test -n "$(ASSIGNMENT)" || { echo "make feedback ASSIGNMENT=a1_partitions_and_drift"; exit 2; }
	$(PY) -m fedecouple_lite feedback "$(ASSIGNMENT)"

test: lint unit widgets7 slow notebooks assignments

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.coursework
	$(PY) -m pytest -n $(WORKERS) --dist worksteal tests --ignore tests/notebooks --ignore tests/browser --ignore tests/slow --ignore tests/coursework
	$(PY) -m pytest --doctest-modules fedecouple_lite

# Many random cases: all backends against each other, all settings.
slow: $(VENV)/.ready
	$(PY) -m pytest -n $(WORKERS) --dist worksteal tests/slow

# Colab ships ipywidgets 7.7.1: the widgets are tested with it, too.
widgets7: $(VENV)/widgets7
	PYTHONPATH=$(VENV)/widgets7 $(PY) -m pytest -n $(WORKERS) --dist worksteal tests/test_widgets.py -W ignore::DeprecationWarning

$(VENV)/widgets7: $(VENV)/.ready
	$(PY) -m pip install --quiet --no-deps --target $@ ipywidgets==7.7.1 ipython_genutils
	@touch $@

notebooks: $(VENV)/.ready
	FEDECOUPLE_FAST=1 $(PY) -m pytest --nbval-lax --nbval-cell-timeout=300 notebooks --ignore notebooks/assignments
	$(PY) -m pytest tests/notebooks

# Coursework, graded by nbgrader: right answers, wrong ones, hostile ones.
assignments: $(VENV)/.coursework $(VENV)/widgets7
	$(PY) -m pytest $(BY_FILE) tests/coursework

browser: $(VENV)/.ready
	$(PY) -m pip install --quiet -e ".[browser]"
	$(PY) -m pytest tests/browser -rs

bench: $(VENV)/.ready
	$(PY) benchmarks/speed.py

mutants: $(VENV)/.ready
	$(PY) -m pip install --quiet -e ".[mutants]"
	$(PY) tests/mutants.py

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
