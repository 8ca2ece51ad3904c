# Two commands: `make demo` runs the whole loop on a simulated robot, `make test` runs the tests.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help:   ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## system libraries, virtual environment, ROS interfaces; seconds when nothing changed
	@scripts/setup.sh

demo: setup  ## record, convert, train, drive, collect, retrain, drive again: about 15 minutes
	@. ./env.sh && qt-ros demo

test: setup lint  ## lint, type check and all tests
	@. ./env.sh && python -m pytest

lint: setup  ## ruff and mypy
	@. ./env.sh && ruff check . && ruff format --check . && mypy

clean:  ## remove what setup, test and demo made
	rm -rf .venv .colcon .stamps build dist *.egg-info runs/demo runs/demo.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
