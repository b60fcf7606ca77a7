# Each target sets up what it needs: a virtual environment in .venv, filled when pyproject.toml changes.
PYTHON ?= python3
BIN = .venv/bin
PROCESSES ?= 2 # that share the tests, each a file at a time and the browser's first, so it starts once

.PHONY: demo test matrix check full lab notebooks

demo: .venv/installed  ## the main job on real data: train by notebook, publish, serve, ask
	$(BIN)/python notebooks/demo.py

test: .venv/installed  ## every test, notebooks at their small size
	$(BIN)/python -m pytest -m "not full and not matrix" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

matrix: .venv/installed  ## the browser tests on several versions of ipykernel and in Notebook 7, and KServe's client
	$(BIN)/python -m pytest -m matrix -n $(PROCESSES)

check: .venv/installed  ## what reads the code without running it
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

full: .venv/installed  ## the long proofs: notebooks at their defaults, storms of kills
	$(BIN)/python -m pytest -m full
	$(BIN)/python -m pytest --workbench notebooks

lab: .venv/installed  ## JupyterLab in the notebooks' folder, the start notebook in front
	$(BIN)/workbench lab notebooks

notebooks: .venv/installed  ## execute the notebooks and store their outputs
	cd notebooks && PATH="$(CURDIR)/$(BIN):$$PATH" WORKBENCH_HEADLESS=1 jupyter nbconvert --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False [0-9]*.ipynb gallery.ipynb

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@
