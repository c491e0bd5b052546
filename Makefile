# `make demo` and `make test` each start from a bare Debian or Ubuntu with Python 3.11 or later.
# The set-up is in scripts/setup.sh; it returns at once when everything is ready.

SHELL := /bin/bash
PY := .venv/bin/python
ARGS ?=
MODELS ?= $(basename $(notdir $(wildcard recipes/*.toml)))
STUDY ?= axial-family
RUNS ?= $(patsubst %/model,%,$(wildcard runs/*/model))

.DEFAULT_GOAL := help
.PHONY: help demo test setup setup-dev slow older-napari lint format types contracts bench weights bundle compare sample-data wheel ci clean distclean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | while IFS='|' read -r name text; do printf '  make %-18s %s\n' "$$name" "$$text"; done

setup:
	@scripts/setup.sh all,test

setup-dev:
	@scripts/setup.sh all,test,dev

demo: setup  ## Set everything up and open napari with a sample, a model and the dock
	@scripts/demo.sh $(ARGS)

test: setup  ## Set everything up and run the tests (ARGS="tests/core -x" for some of them)
	scripts/on-display.sh $(PY) -m pytest -n auto --maxprocesses 4 $(ARGS)

slow: setup  ## Run the tests that take long
	scripts/on-display.sh $(PY) -m pytest -m slow $(ARGS)

older-napari: setup  ## Run the window's tests with the minor version of napari before the pinned one
	[ -d build/napari-0.8 ] || $(PY) -m pip install --no-deps --target build/napari-0.8 "napari==0.8.*"
	PYTHONPATH=build/napari-0.8 scripts/on-display.sh $(PY) -m pytest tests/widgets $(ARGS)

lint: setup-dev  ## Look for mistakes and layout with ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup-dev  ## Let ruff mend layout and what it safely can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: setup-dev  ## Check types with mypy (strict outside widgets)
	$(PY) -m mypy

contracts: setup-dev  ## Check which room imports which with import-linter
	.venv/bin/lint-imports

bench: setup-dev  ## Compare the networks with their straightforward forms, side by side
	$(PY) -m benchmarks.medt_speed
	$(PY) -m benchmarks.pick_speed
	scripts/on-display.sh $(PY) -m benchmarks.dock_pick_speed

weights: setup  ## Train the bundled models anew by their recipes, one after the other (MODELS="medt-nuclei ..." for some)
	for name in $(MODELS); do [ -e runs/$$name/model ] || $(PY) -m napari_medt train --recipe recipes/$$name.toml --resume $(ARGS) || exit; done

bundle: setup  ## Copy the models of finished runs into the package, with their cards (RUNS="runs/medt-nuclei ...")
	$(PY) recipes/bundle.py $(RUNS) $(ARGS)
	$(PY) -m napari_medt models --check

compare: setup  ## Compare networks by a study (STUDY=axial-family); finished trainings are kept
	$(PY) -m napari_medt compare recipes/studies/$(STUDY).toml $(ARGS)

sample-data: setup  ## Make the sample images anew by their seeded script
	$(PY) -m napari_medt.sample_data.make --out sample_data $(ARGS)

wheel: setup-dev  ## Build the wheel, install it into an empty environment outside the tree and check it
	scripts/check-wheel.sh

ci:  ## Everything a change must pass
	.ci/run

clean:  ## Remove what was built, but not the environment
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage demo.png
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## Remove the environment too
	rm -rf .venv
