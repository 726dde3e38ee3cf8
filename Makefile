# make demo   the whole pipeline on generated radiographs     make test   is the installation sound?
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CORES ?= 2
export OMP_NUM_THREADS ?= 2
# Hundreds of Pythons are started: they shall find the package compiled.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 pytest -q
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP)  ## make .venv with the tested pins

$(STAMP): pyproject.toml envs/constraints.txt
	@echo "Installing into .venv (some minutes and about 8 GB; details in .venv/install.log) ..."
	@$(PYTHON) -c 'import sys; sys.exit("dollmaker needs Python 3.11 or newer; set PYTHON=python3.11 or the like." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[dev]' >.venv/install.log 2>&1 \
		|| { tail -n 15 .venv/install.log; echo "Installation failed: see .venv/install.log."; exit 1; }
	@touch $@

demo: install  ## the whole pipeline on generated radiographs
	@echo "Running the whole pipeline on generated radiographs, 3 to 10 minutes on 2 cores; open results/phantoms/report.html at the end."
	@snakemake --cores $(CORES) --quiet rules host --rerun-incomplete
	@snakemake --cores 1 --quiet all --report results/phantoms/report.zip >/dev/null 2>&1
	@echo "Done: results/phantoms/report.html (page), report.zip (workflow report), release/ (verified), summary.json (numbers)."

test: install  ## format, lint, types, unit tests and a micro end-to-end run
	@echo "Checking format, lint, types, unit tests and a micro run of the workflow, some minutes; the last line is the result."
	@ruff format --check --quiet .
	@ruff check --quiet .
	@snakefmt --check Snakefile workflow 2>/dev/null || { echo "snakefmt: run make format."; exit 1; }
	@said=$$(mktemp); { snakemake --lint >/dev/null 2>"$$said" && exec mypy >"$$said" 2>&1; } & checks=$$!; \
	trap 'kill $$checks 2>/dev/null || true; rm -f "$$said"' EXIT; failed=; \
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests || failed=tests; \
	wait $$checks || failed="lint or types$${failed:+, and $$failed}"; \
	cat "$$said"; [ -z "$$failed" ] || { echo "Failed: $$failed, see above."; exit 1; }; \
	echo "Passed: format, lint, types and tests."

test-slow: install  ## the tests that take minutes
	@pytest -q -m "slow and not slurm" tests

test-slurm: install  ## on a Slurm of its own (Debian, root; 10 to 20 minutes; installs slurm-wlm)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[slurm]'
	@pytest -q -rs -s -m slurm tests/cluster

drill: install  ## kill jobs and Snakemake 20 times, then compare the release (10 to 20 minutes)
	@python tests/faults/drill.py results/drill

test-browser: install  ## the gallery's tests in headless Chromium; as root installs Debian's first
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		[ "$$(id -u)" = 0 ] || { echo "Install Debian's packages chromium and chromium-driver, or run this as root."; exit 1; }; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; }
	@OMP_NUM_THREADS=1 pytest -q tests/gallery

bench: install  ## how fast and how exact, some 20 minutes; numbers go to results/bench
	@mkdir -p results/bench
	@for what in attribute binarize release startup $$(command -v chromium >/dev/null && echo gallery); do \
		python benchmarks/$$what.py --json results/bench/$$what.json; done

docs: install  ## the documentation as a site, site/index.html; a dead link is an error
	@$(BIN)/pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet && echo "Done: site/index.html."

hooks: install  ## check each commit by pre-commit
	@$(BIN)/pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[package]'
	@pre-commit install

release-check: install  ## build sdist and wheel, use the wheel in a fresh environment
	@$(BIN)/pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[package]'
	@.ci/release-check

format:  ## put the code into its form
	@ruff format --quiet . && ruff check --fix --quiet . && snakefmt Snakefile workflow 2>/dev/null

clean:  ## remove results and Snakemake's state, keep .venv
	@rm -rf results site .snakemake

.PHONY: help install demo test test-slow test-slurm drill test-browser bench docs hooks release-check format clean
