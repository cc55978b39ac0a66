# `make` lists the targets. Everything is installed into .venv, once; it is brought up to date when pyproject.toml,
# constraints.txt or one of the variables below changes. After the install nothing needs the network.
#
#   PYTHON       the Python that makes .venv, of 3.11 to 3.14; by default the newest of these that is found
#                                                                  make run PYTHON=/opt/python3.12/bin/python3
#   TORCH        another build of PyTorch, in pip's words          make run TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
#   CONSTRAINTS  the file of exact pins; empty takes the newest    make run CONSTRAINTS=
#   ARGS         what is added to the command of `run` or pytest   make run ARGS="--data citeulike-t"
#
# TORCH and CONSTRAINTS are remembered until they are given anew or `make clean` is called.

-include .venv/choices.mk
PYTHON ?=
TORCH ?=
CONSTRAINTS ?= constraints.txt
ARGS ?=
JOBS ?= auto

# The newest Python that makes an environment: a name may be the shim of a Python that is not there, or lack ensurepip
# (Debian's without python3-venv).
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3 python)
NEWEST = for python in $(CANDIDATES); do "$$python" -c '$(USABLE)' 2> /dev/null && echo "$$python" && break; done

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/python -m pytest
EVERY_CORE = -n $(JOBS) --dist worksteal
# How other machines compute: older instruction sets, other kernels; each with one thread and with two. FITTING=1 takes
# a mixture of them, and the files of tests that fit anything. Tests of two threads share the cores among half as many
# workers: threads that wait for a core hold up one another.
MACHINES := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE
EVERY_MACHINE := $(foreach machine,$(MACHINES),$(machine),TEST_THREADS=1 $(machine),TEST_THREADS=2)
HALF_THE_CORES = -n $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / 2 ))) --dist worksteal
ONE_MACHINE := ATEN_CPU_CAPABILITY=default,ONEDNN_MAX_CPU_ISA=SSE41,MKL_CBWR=COMPATIBLE,TEST_THREADS=1
FITTING ?=
LIBRARY := import sysconfig; print(sysconfig.get_path("purelib"))
# pytest's exit code 5 is "no test carries this mark"
MAY_BE_EMPTY := || { code=$$?; [ $$code -eq 5 ] && echo "no test carries this mark yet"; }

.DEFAULT_GOAL := help
.PHONY: help run test machines slow statistical realdata seeds lint format docs peers claims bench clean FORCE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed  ## install, then fit the embedded data set by variational Bayes and report
	$(BIN)/python -m inference.svi --mode bayes $(or $(ARGS),--overwrite)

test: .venv/installed-dev  ## install, then the quick tests
	$(PYTEST) $(EVERY_CORE) $(ARGS)

machines: .venv/installed-dev  ## the quick tests as other machines compute them (long); FITTING=1: those that fit, one way
	@set -e; for machine in $(if $(FITTING),$(ONE_MACHINE),$(EVERY_MACHINE)); do \
		settings=$$(echo "$$machine" | tr , ' '); echo "$$settings"; \
		case "$$machine" in *THREADS=2) workers="$(HALF_THE_CORES)" ;; *) workers="$(EVERY_CORE)" ;; esac; \
		env $$settings $(PYTEST) $$workers $(if $(FITTING),--fitting) $(ARGS); done

slow: .venv/installed-dev  ## the tests that take long, or that measure memory
	$(PYTEST) $(EVERY_CORE) -m "slow and not statistical and not realdata" $(ARGS) $(MAY_BE_EMPTY)

statistical: .venv/installed-dev  ## the tests that may fail by chance, rarely
	$(PYTEST) $(EVERY_CORE) -m "statistical and not realdata" $(ARGS) $(MAY_BE_EMPTY)

realdata: .venv/installed-dev  ## the tests on the CiteULike folders under $PYRO_CVAE_DATA; without it they are skipped
	$(PYTEST) $(EVERY_CORE) -m realdata $(ARGS) $(MAY_BE_EMPTY)

seeds: .venv/installed-dev  ## how many of twenty seeds pass each floor of the statistical tests (long)
	$(BIN)/python -m benchmarks.seeds $(ARGS)

lint: .venv/installed-dev  ## style and types: ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-docs  ## the documentation as a site, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

peers: .venv/installed-dev  ## the adapters' tests, LensKit and RecTools each in an environment of its own over .venv
	@set -e; for peer in lenskit rectools; do \
		home=.venv/peers/$$peer; [ -x $$home/bin/python ] || $(BIN)/python -m venv $$home; \
		$(BIN)/python -c '$(LIBRARY)' > "$$($$home/bin/python -c '$(LIBRARY)')/beside.pth"; \
		$$home/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r tests/peers/$$peer.txt; \
		$$home/bin/python -m pytest tests/inference/test_$$peer.py $(ARGS); done

claims: .venv/installed-dev  ## compute again every figure that README and docs state (long)
	$(BIN)/python -m benchmarks.claims $(ARGS)

bench: .venv/installed-dev  ## time and memory beside a dense model and implicit's ALS, and how they grow
	$(BIN)/python -m benchmarks.epoch $(ARGS)
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.growth

clean:  ## remove .venv, the site, built wheels and the tools' caches; run folders stay
	rm -rf .venv site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment -----------------------------------------------------------------------------------------

# The choices are kept in a file that is rewritten only when they differ, so that another TORCH installs anew.
CHOICES = TORCH ?= $(TORCH)\nCONSTRAINTS ?= $(CONSTRAINTS)\n
.venv/choices: FORCE
	@[ -x $(BIN)/pip ] || "$$($(NEWEST))" -m venv .venv 2> /dev/null || { echo "error: none of" $(CANDIDATES) "is a Python" \
		"of 3.11 to 3.14 that makes environments; install one (Debian: python3-venv), or name one: make PYTHON=..." >&2; exit 2; }
	@[ -z "$(PYTHON)" ] || [ "$$("$(PYTHON)" -V)" = "$$($(BIN)/python -V)" ] || { \
		echo "error: .venv has $$($(BIN)/python -V), PYTHON is $(PYTHON); call make clean first" >&2; exit 2; }
	@printf '$(CHOICES)' | cmp -s - .venv/choices.mk || { printf '$(CHOICES)' > .venv/choices.mk; touch $@; }

# TORCH goes first and alone, since its index may not hold the pins of the other packages.
.venv/installed: .venv/choices pyproject.toml $(CONSTRAINTS)
ifneq ($(strip $(TORCH)),)
	@grep -s '^torch==' $(or $(CONSTRAINTS),/dev/null) > .venv/torch.txt || true
	$(PIP) -c .venv/torch.txt $(TORCH)
endif
	$(PIP) $(addprefix -c ,$(CONSTRAINTS)) -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]'
	@touch $@

.venv/installed-docs: .venv/installed
	$(PIP) $(addprefix -c ,$(CONSTRAINTS)) -e '.[docs]'
	@touch $@
