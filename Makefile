# fpcontrol: `make` lists what there is to do. Every target first sets up what it needs in .venv.
#
#   ARGS=...    handed on to the demo, to the checks, to pytest or to the benchmarks
#   NP=...      MPI ranks of the demo, the checks and the benchmarks
#   BENCH=...   names of benchmarks, such as "forward memory"; all unless given
#   OUT=...     folder for results of benchmarks: benchmarks/results unless they are quick ones or
#               on several ranks, which go to out/benchmarks
#   PYTHON=...  the Python (>= 3.12) to set up .venv on; the first that answers, if not given
#
# In an activated conda environment that has fenics-dolfinx, .venv borrows it and its MPI; keep it
# activated for the later calls.

.DEFAULT_GOAL := help
NP := 2
ARGS :=
BENCH := $(filter-out bridges score tracking,$(patsubst benchmarks/bench_%.py,%,$(sort $(wildcard benchmarks/bench_*.py))))
OUT = $(if $(findstring --quick,$(ARGS))$(filter-out 1,$(NP)),out/benchmarks,benchmarks/results)

export PYTHON
# BLAS would start as many threads as there are cores on every rank.
export OMP_NUM_THREADS := 1
# The mpirun that belongs to the environment's mpi4py, before any other of the machine's.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help demo verify test test-all mutation fuzz lint format bench bench-bridges bench-score bench-tracking peers clean environment compiler

help:  ## List the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: environment  ## Steer the people of Great Britain on NP ranks; results in out/
	mpirun -n $(NP) python -m mpi4py demos/demo_great_britain.py $(ARGS)

verify: NP := 1
verify: environment  ## Check the theorems on one rank, or on NP; try ARGS="--quick --report out"
	$(if $(filter-out 1,$(NP)),mpirun -n $(NP) python -m mpi4py,python) -m fpcontrol verify $(ARGS)

test: compiler  ## Run the tests on 1, 2 and 3 ranks, except the slow ones
	@.ci/run_tests "not slow" $(ARGS)

test-all: compiler  ## Run all tests
	@.ci/run_tests "" $(ARGS)

mutation: environment  ## Break the code on purpose, and see whether the theorem checks find it
	python tests/mutation.py $(ARGS)

fuzz: NP := 3
fuzz: environment  ## Random problems on 1 to NP ranks, a minute; try ARGS="--seconds 600"
	python tests/fuzz.py --ranks $(NP) $(ARGS)

lint: environment  ## Check style and types
	python -m ruff check
	python -m ruff format --check
	python -m mypy

format: environment  ## Let ruff format and mend what it can
	python -m ruff format
	python -m ruff check --fix

bench: NP := 1
bench: compiler peers  ## Run the benchmarks on one rank, or on NP; tables and figures in OUT
	@set -e; for name in $(BENCH); do script="benchmarks/bench_$$name.py"; echo "$$script"; \
	    mpirun -n $(NP) python -m mpi4py "$$script" --out "$(OUT)" $(ARGS); done
	@python benchmarks/aims.py "$(OUT)"

bench-bridges: environment  ## Forms of a score at equal budgets, an hour of a core; it can be resumed
	python benchmarks/bench_bridges.py --out "$(OUT)" $(ARGS)

bench-score: environment  ## Samplers of trained scores, 75 minutes of a core; it needs JAX and can be resumed
	python benchmarks/bench_score.py --out "$(OUT)" $(ARGS)

bench-tracking: NP := 2
bench-tracking: environment  ## How closely few neurons follow, an hour on NP ranks; it can be resumed
	mpirun -n $(NP) python -m mpi4py benchmarks/bench_tracking.py --out "$(OUT)" $(ARGS)

peers:  ## Set up other tools for the benchmarks to run beside, in .venv-peers
	@.ci/install_peers

clean:  ## Remove the environments and the caches; results in out/ stay
	rm -rf .venv .venv-peers build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

environment:
	@.ci/install

# The package compiles no forms; the tests and the benchmarks compare it with forms that are.
compiler: environment
	@python .ci/check_environment.py compiler headers
