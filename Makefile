# Two commands: `make demo` runs the whole loop on a simulated robot, `make test` runs the tests.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-jazzy lint clean bench bench-convert bench-memory bench-cache bench-crash bench-fuzz bench-control bench-soak bench-inference bench-train-step bench-learning bench-outside

# As many tests at a time as there are cores; those in real time come last, alone.
PARALLEL := -n auto --dist loadgroup --no-loadscope-reorder

help:   ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup:  ## system libraries, virtual environment, ROS interfaces; seconds when nothing changed
	@scripts/setup.sh

demo: setup  ## record, convert, train, drive, collect, retrain, drive again: about 15 minutes
	@. ./env.sh && qt-ros demo

test: setup lint  ## lint, type check and all tests
	@. ./env.sh && python -m pytest $(PARALLEL)

test-jazzy:  ## set up ROS 2 Jazzy beside Kilted and test what runs over ROS with it
	@unset AMENT_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH && export QT_ROS=jazzy && scripts/setup.sh \
	&& . ./env.sh && python -m pytest tests/ros tests/spine tests/test_launch_files.py

lint: setup  ## ruff and mypy
	@. ./env.sh && ruff check . && ruff format --check . && mypy

bench: bench-convert bench-cache bench-crash  ## the benches of less than an hour together

bench-convert: setup  ## converting: CPU seconds by stage, times real time, ratio to the floor
	@. ./env.sh && python bench/convert.py

bench-memory: setup  ## peak memory of converting 10 and 60 minutes of two cameras: about an hour
	@. ./env.sh && python bench/memory.py

bench-cache: setup  ## windows a second from the training cache, beside the videos
	@. ./env.sh && python bench/cache.py

bench-crash: setup  ## kill conversions 200 times at random and look at what is left
	@. ./env.sh && python bench/crash.py

bench-fuzz: setup  ## 10 000 mutated recordings, contracts, labels and datasets: half an hour; goes on where it was stopped
	@. ./env.sh && python bench/fuzz.py

bench-control: setup  ## the policy node's timing over real topics: period, command age, CPU, beside the floor
	@. ./env.sh && python bench/control_loop.py

bench-inference: setup  ## CPU time of one action on one core: parts, operations, floor, kinds of weights
	@. ./env.sh && python bench/inference.py

bench-train-step: setup  ## CPU time of a training step on one core: parts, operations, floor
	@. ./env.sh && taskset -c 0 python bench/train_step.py

bench-soak: setup  ## an hour of the policy node against the simulator: memory, watchdog, every tick accounted for
	@. ./env.sh && python bench/soak.py

STUDY = block
SEEDS = 0 1 2
JOBS = 2
bench-learning: setup  ## the learning table (STUDY=block SEEDS="0 1 2" JOBS=2 MINUTES=60): 6 CPU-hours; goes on where it was stopped
	@. ./env.sh && python -m bench.learning run --study $(STUDY) --seeds $(SEEDS) --jobs $(JOBS) \
	$(if $(MINUTES),--minutes $(MINUTES)); status=$$?; python -m bench.learning report --seeds $(SEEDS); exit $$status

bench-outside: setup  ## IQL, CQL and BC of d3rlpy on the block world's true state (SEEDS="0"): about 40 CPU-minutes a seed
	@scripts/outside.sh $(SEEDS)

clean:  ## remove what setup, test and demo made
	rm -rf .venv* .colcon* .stamps* build dist *.egg-info runs/demo runs/demo.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
