# Two commands set everything up: `make demo` and `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# setuptools warns of every editable install, which is what we want.
PIP := PYTHONWARNINGS=ignore $(PY) -m pip
# Every program here runs one thread per client; BLAS pools beside them only get in the way.
export MPLBACKEND ?= Agg

# What runs tests. Threads that wait for each other sleep: by default they spin, and keep the cores from the tests
# beside them (two threads in each of two processes took twice the time). Code is compiled once and kept, also where
# Python is told not to, for hundreds of programs are started. nbval, a second of every start, is for tests/colab.
PYTEST = env OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -p no:nbval
# Tests run side by side, in one process per core.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')
# Where a browser waits for a kernel, and that for its page, a third of the time nobody computes.
BROWSERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
# Flower's own processes take the cores that these leave.
FLOWER_WORKERS ?= 3

.PHONY: help demo everything docstrings flower flower_tests lab coursework grade formgrader feedback test unit widgets7 slow colab datasets assignments lint browser docs site bench mutants app bundle address dist clean

help:
	@echo "make demo       install into .venv, then FedAvg, FedRep and FedeCouple on real digits (figures in runs/demo/)"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make coursework the students' notebooks from the masters in notebooks/assignments/, checked"
	@echo "make grade FOLDER=...         grade submissions: points, feedback, a table"
	@echo "make formgrader               grade by hand what waits for it, in nbgrader's pages"
	@echo "make feedback ASSIGNMENT=...  feedback anew, after what is graded by hand"
	@echo "make test       every check: lint, types, unit tests, widgets on Colab's ipywidgets, random cases, notebooks"
	@echo "make browser    every notebook run and every widget clicked in JupyterLab, in Chromium"
	@echo "make flower     FedeCouple on Flower: a SuperLink and four SuperNodes on this machine, started and ended"
	@echo "make datasets   the notebooks that offer other data sets, on each of them; not part of make test"
	@echo "make app        a page for the lecture room: explorer, live training, ablation studio"
	@echo "make bundle     the course as one file, for Colab and any hosted Jupyter: dist/fedecouple-lite-course.zip"
	@echo "make address REPO=owner/name  Colab badges and the address to install from, everywhere; REPO= for none"
	@echo "make dist       wheel and sdist, built and tried"
	@echo "make docs       the site, in docs/_build/html: runs each notebook once, some minutes the first time"
	@echo "make site       the site without running a notebook: whether it is whole, and reads in a browser"
	@echo "make bench      speed, as ratios to a bare training loop"
	@echo "make mutants    would the tests notice? 300 small changes of the library, one at a time"
	@echo "make clean      remove .venv, runs/ and caches (downloaded data stays)"

# Made once, refreshed only when pyproject.toml changes. torch and torchvision come together from one place.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedecouple-lite needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	@echo "Installing PyTorch and friends into $(VENV): some minutes and about 5 GB the first time ..."
	$(PIP) install --quiet --progress-bar on -e ".[umap,lab,security,dev]"
	@touch $@

demo: $(VENV)/.ready
	$(PY) -m fedecouple_lite demo

lab: $(VENV)/.ready
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

# nbgrader, which only coursework needs.
$(VENV)/.coursework: $(VENV)/.ready
	$(PIP) install --quiet -e ".[coursework]"
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

# Lint and docstrings keep one core busy: they go beside the unit tests. While Flower's processes wait for each other, and
# one core for Sphinx, the other has something to do; the site takes notebooks that the browser's tests have run.
test: everything $(VENV)/widgets7
	$(MAKE) -j 3 lint docstrings unit
	$(MAKE) widgets7 slow colab assignments browser
	$(MAKE) -j 2 flower_tests site

# What the tests need, in one go where nothing is there yet: pip looks once, not four times.
everything: pyproject.toml
	@test -e $(VENV)/.docs || { $(MAKE) $(VENV)/.ready && \
	  $(PIP) install --quiet -e ".[coursework,browser,app,docs,flower]" && \
	  touch $(VENV)/.coursework $(VENV)/.browser $(VENV)/.flower $(VENV)/.docs; }

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.coursework
	$(PYTEST) -n $(WORKERS) --dist worksteal tests --ignore tests/notebooks --ignore tests/colab --ignore tests/browser --ignore tests/slow --ignore tests/coursework --ignore tests/docs --ignore tests/flower

docstrings: $(VENV)/.coursework $(VENV)/.flower
	$(PYTEST) --doctest-modules fedecouple_lite

# Flower, and Ray for its simulations.
$(VENV)/.flower: $(VENV)/.ready
	$(PIP) install --quiet -e ".[flower]"
	@touch $@

# make flower ARGS="--clients 10 --rounds 20": as `python -m fedecouple_lite flower`.
flower: $(VENV)/.flower
	$(PY) -m fedecouple_lite flower $(or $(ARGS),--clients 4 --rounds 3 --participation 0.5)

# The same methods on Flower, in simulation and on loopback; while one waits for Flower, another computes.
flower_tests: $(VENV)/.flower
	$(PYTEST) -n $(FLOWER_WORKERS) --dist loadfile tests/flower -rs

# Many random cases: all backends against each other, all settings.
slow: $(VENV)/.ready
	$(PYTEST) -n $(WORKERS) --dist worksteal tests/slow

# Colab ships ipywidgets 7.7.1: the widgets are tested with it, too.
widgets7: $(VENV)/widgets7
	PYTHONPATH=$(VENV)/widgets7 $(PYTEST) -n $(WORKERS) --dist worksteal tests/test_widgets.py -W ignore::DeprecationWarning

$(VENV)/widgets7: $(VENV)/.ready
	$(PIP) install --quiet --no-deps --target $@ ipywidgets==7.7.1 ipython_genutils
	@touch $@

# The course, run by nbval as on Colab: from the bundle alone, in an environment that lacks the package.
colab: $(VENV)/.ready $(VENV)/widgets7
	$(PYTEST) -n $(WORKERS) --dist worksteal tests/colab

# The notebooks that offer other data sets, on each of them. The browser's tests run one of each; this is for changes of
# a notebook, or of the sizes in course/lessons.py.
datasets: $(VENV)/.ready
	$(PYTEST) tests/notebooks -rs

# Coursework, graded by nbgrader: right answers, wrong ones, hostile ones.
assignments: $(VENV)/.coursework $(VENV)/widgets7
	$(PYTEST) -n $(WORKERS) --dist loadfile tests/coursework

# Playwright and Voila; Chromium itself is the machine's own. Without it these tests are skipped, and say so.
$(VENV)/.browser: $(VENV)/.ready
	$(PIP) install --quiet -e ".[browser,app]"
	@touch $@

# Every notebook in JupyterLab, every widget clicked, the lecture room's page.
browser: $(VENV)/.browser
	$(PYTEST) -n $(BROWSERS) --dist loadscope tests/browser --ignore tests/browser/test_site_in_browser.py -rs

# The widgets alone, large, on one page; two kernels wait so that it opens at once.
app: $(VENV)/.browser
	cd notebooks/app && JUPYTER_PATH=jupyter "$(CURDIR)/$(BIN)/voila" lecture_room.ipynb $(ARGS)

# The course in one file, for a Jupyter that has no address to install it from: dist/fedecouple-lite-course.zip.
bundle: $(VENV)/.ready
	$(PY) .ci/bundle.py

# Where this copy of the project lives on GitHub, written everywhere; make address REPO= takes it away.
address: $(VENV)/.ready
ifeq ($(origin REPO),undefined)
	@echo "make address REPO=owner/name, or make address REPO= for none"; exit 2
endif
	@$(PY) .ci/address.py "$$REPO"

# Wheel and sdist, each tried in an environment of its own.
dist: $(VENV)/.ready
	$(PY) .ci/dist.py

# Sphinx, and nbgrader and Flower for the reference's pages of them.
$(VENV)/.docs: $(VENV)/.coursework $(VENV)/.flower
	$(PIP) install --quiet -e ".[docs]"
	@touch $@

# make docs EXECUTED=folder takes notebooks that were run already from there, and runs none.
docs: $(VENV)/.docs
	$(if $(EXECUTED),FEDECOUPLE_EXECUTED="$(abspath $(EXECUTED))" )$(PY) -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo "The site is in docs/_build/html/: open index.html. It needs no network."

site: $(VENV)/.docs $(VENV)/.browser
	$(PYTEST) -n $(WORKERS) --dist worksteal tests/docs tests/browser/test_site_in_browser.py -rs

bench: $(VENV)/.ready
	$(PY) benchmarks/speed.py

mutants: $(VENV)/.ready
	$(PIP) install --quiet -e ".[mutants]"
	$(PY) tests/mutants.py

clean:
	rm -rf $(VENV) runs build docs/_build docs/api docs/course dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
