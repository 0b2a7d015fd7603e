# Every command does its own set-up. These go with each of them:
#   DATASET=name or path of a contract (simulated)   LOG=file, folder or glob of the log   DTRN_HOME=folder (.dtrn)   PORT=number
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test check ui serve reports bench-train search leaderboard forget
.SUFFIXES:

# What the caller left out stays out of the environment: the command line has its own defaults.
$(foreach name,DATASET LOG DTRN_HOME PORT,$(if $(value $(name)),$(eval export $(name))))

# A thread that waits for another spins for about a tenth of a millisecond, then sleeps: asleep at once, a second core gains
# nothing; spinning on, threads take the cores from those that work.
ifndef OMP_WAIT_POLICY
export GOMP_SPINCOUNT ?= 10000
endif
# Memory that a step of training gives back is taken again by the next: handing it to the system in between costs a fifth of it.
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824

PYTHON_IN_VENV := .venv/bin/python

help: ## this list
	@echo "make COMMAND [DATASET=simulated] [LOG=path] [DTRN_HOME=.dtrn] [PORT=number]"
	@awk -F ': .*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with the pinned packages (the others do it too, when needed)
	@orchestration/setup.sh

demo: setup ## the daily job on a whole log, served, replayed and reported; ends with a table
	@./dtrn demo

ui: setup ## Dagster's UI and daemon with this project loaded, on 127.0.0.1:3000
	@./dtrn ui

serve: setup ## the champion bento, on 127.0.0.1:3001
	@./dtrn serve

reports: setup ## Evidently's UI over the drift reports of every data set, on 127.0.0.1:8000
	@./dtrn reports

test: setup ## all tests, a file a core, four at most
	@OMP_NUM_THREADS=1 $(PYTHON_IN_VENV) -m pytest -n logical --maxprocesses 4 --dist loadfile

check: setup ## ruff, formatting, strict types, who imports whom
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m mypy --strict assets bentos models orchestration
	@$(PYTHON_IN_VENV) -m pytest -q tests/test_imports.py

bench-train: setup ## training speed beside torch-rechub and the plain padded form; memory, first batch, AUC
	@$(PYTHON_IN_VENV) -m benchmarks.train

search: setup ## the same hyper-parameter trials for every model, on simulated worlds and on DATASET's samples when it is named
	@$(PYTHON_IN_VENV) -m benchmarks.search $(if $(DATASET),--log $(DATASET)=$(or $(DTRN_HOME),.dtrn))

leaderboard: setup ## the comparison of all models: the runs that are missing (hours in all), then docs/leaderboard.md
	@$(PYTHON_IN_VENV) -m benchmarks.leaderboard $(if $(DATASET),--log $(DATASET)=$(or $(DTRN_HOME),.dtrn))

forget: setup ## delete what was made of DATASET: lake, models, champions, reports (the simulated log too); asks first
	@./dtrn forget
