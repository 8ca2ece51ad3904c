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

bench: setup  ## CPU-minutes of training against success, in process: about 10 minutes
	@. ./env.sh && mkdir -p runs/bench && rm -rf runs/bench/cache runs/bench/run \
	&& python bench/make_block_cache.py --out runs/bench/cache --demos 200 --noisy 75 \
	&& python bench/calibrate.py --cache runs/bench/cache --out runs/bench/run --each --scenes 9500000

clean:  ## remove what setup, test and demo made
	rm -rf .venv .colcon .stamps build dist *.egg-info runs/demo runs/demo.* runs/bench
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
