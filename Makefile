# PaperTwin. `make figures` and `make test` are the two commands; each prepares .venv first if it must.
# Variables: PYTHON (the interpreter that .venv is made with), ARGS (passed on), PAPERS (slugs; all when empty).

PYTHON ?= python3
PAPERS ?=
ARGS ?=
BIN := .venv/bin

.PHONY: help setup figures test lab lock clean

help:
	@echo "make figures   run every paper's notebook and write figures/index.html (PAPERS=\"don\" for some of them)"
	@echo "make test      unit tests, notebook contract and nbval over every notebook (ARGS=\"-m 'not notebook'\": quick)"
	@echo "make lab       open the notebooks in JupyterLab"
	@echo "make setup     only prepare .venv from requirements.lock (done by the others when needed)"
	@echo "make lock      rebuild requirements.lock from pyproject.toml"
	@echo "make clean     remove caches, run state and HTML; keep figures and data"

setup:
	@$(PYTHON) lib/bootstrap.py

# `papertwin run` writes the report too, also when a paper failed; its exit code tells of the failure.
figures: setup
	@MPLBACKEND=Agg $(BIN)/papertwin run $(PAPERS) $(ARGS)

test: setup
	@MPLBACKEND=Agg $(BIN)/python -m pytest tests $(ARGS)

lab: setup
	@$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(ARGS)

# In a temporary environment, for Python 3.11.0 (the oldest supported, so that every pin serves the later ones too): asks
# pip for the newest versions that pyproject.toml admits, with the extra `test`, and pins all of them. Needs Python 3.11.
lock:
	@$(PYTHON) lib/bootstrap.py --lock

clean:
	rm -rf figures/.cache figures/.state figures/.locks figures/.staging figures/.failed figures/assets figures/index.html
	rm -rf .pytest_cache .ruff_cache .hypothesis build
	find figures -name '*.html' -exec rm -f {} +
	find lib tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +
