# The two commands of the README (make demo, make test), and make quick, soak, notebooks, docs, howtos, guard and lint, all in .venv.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
SOAK_MINUTES ?= 10
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: demo test quick soak notebooks docs howtos guard lint clean

# Train on handwritten digits, draw samples, measure them.
demo: $(VENV)/.installed
	$(PY) train.py experiment=demo
	$(PY) sample.py
	$(PY) evaluate.py mode=elbo
	@$(PY) -c "from heatgen.runtime.directory import find_run; print('Watch the digits come out of blur:', find_run('latest', '$${HEATGEN_RUNS:-runs}') / 'report.html')"

# The whole test suite, a process for each core; but for the pages of the documentation, which make howtos tries.
test: $(VENV)/.installed-test
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not pages"

# The quick part of it.
quick: $(VENV)/.installed-test
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

# Kills, pairs of starts, signals, random configurations and bad inputs for some minutes; see docs/reliability.md.
soak: $(VENV)/.installed-test
	$(PY) -m tests.soak $(SOAK_MINUTES) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

# Execute every notebook from start to end; nothing is written, and an error in any of them is one here.
notebooks: $(VENV)/.installed-notebooks
	$(VENV)/bin/jupyter-execute --timeout=600 notebooks/*.ipynb

# The documentation as a site, build/site/index.html; a link that leads nowhere is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# Its tutorial, how-tos and explanations to the letter: a command that fails is an error.
howtos: $(VENV)/.installed-test
	$(PY) -m pytest -n auto -m pages tests/test_howtos.py

# The ratios of speed that may not fall; see docs/performance.md.
guard: $(VENV)/.installed-test
	$(PY) -m benchmarks --guard

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Error: heatgen needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-notebooks: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[notebooks]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
