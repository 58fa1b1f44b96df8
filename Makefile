# make study                            set up, then run the whole default study
# make study STUDY=studies/smoke.yaml   another study; several overlays: STUDY="a.yaml b.yaml"
# make record                           add a finished study to DVC; STUDY as above
# make restore                          fetch a recorded study from remote storage; STUDY as above
# make install                          install only what `make study` needs
# make dvc                              also DVC, for `dvc repro`; record and restore install it
# make hub                              also the packages for stories from the Hugging Face hub
# make slurm                            also the packages for a study on a Slurm cluster
# make kubernetes                       also the packages for a study in pods, with its files in S3
# make test                             set up, then run the test suite
# make test-slow                        the tests that take minutes
# make test-faults                      slow tests that kill processes, damage files, fill disks
# make test-processes                   slow tests that train one run in several processes
# make test-restore                     slow tests that restore studies or run DVC experiments
# make docs                             build the documentation into site/
# make test-docs                        slow tests of the documentation's commands and pages
# make test-slurm                       slow tests that need Slurm, which they start themselves
# make test-cloud                       slow tests that run studies in pods, with files in S3
# make fuzz                             fuzz parameters, readers, manifests and grammar,
#                                       ten minutes each; SECONDS=60: one minute
# make pdf                              print the default study's report as PDF, with Chromium
# make test-torch                       the library's tests with the oldest and newest allowed torch
# make readme                           update the committed studies' results in README.md and docs
# make expected                         update their expected losses and times, for the docs
# make leaderboard                      the table of losses; LOSS=my_losses.py:name: train it first
# make lock                             pin missing packages in requirements*.lock; UPGRADE=1: all
# make lint                             check formatting, types, imports and more
# make clean                            remove the environment
#
# PYTHON   the interpreter for .venv
# SYSTEM   1: use the torch that is already installed, as in GPU images
# TORCH    cpu or cuda: that build; any: the package index's build, even if its hash is not in the
#          lock; otherwise the build that pip selects by its settings
# CORES    the number of cores that the study may use
# GPUS     the number of GPUs that it may use; each runs one job at a time

PYTHON ?= python3
CORES  ?= all
STUDY  ?=
LOSS   ?=
SYSTEM ?=
TORCH  ?=
GPUS   ?= $(shell found=$$(nvidia-smi --list-gpus 2> /dev/null) || found=; printf %s "$$found" | grep -c .)

# Accept these only on make's command line: other programs export their own SYSTEM.
ifneq ($(origin SYSTEM),command line)
SYSTEM :=
endif
ifneq ($(origin TORCH),command line)
TORCH :=
endif

# Keep caches here if the home folder is missing or not writable.
ifneq ($(shell test -d "$$HOME" && test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.snakemake/squentropy/home
$(shell mkdir -p "$(HOME)")
endif

EXTRAS := dvc hub kubernetes slurm
# Studies whose results are committed.
CLAIMED := grammar long long-again tinystories-sample fairytales shakespeare teacher
VENV := .venv
BIN  := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Write byte code: without it, every process of the study compiles torch again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: study record restore install $(EXTRAS) lint pdf leaderboard readme expected docs lock clean \
        test fuzz test-slow test-faults test-processes test-restore test-slurm test-cloud test-docs \
        test-torch

# `make study studies/smoke.yaml` would start the default study.
$(if $(filter %.yaml,$(MAKECMDGOALS)),$(error write STUDY="$(filter %.yaml,$(MAKECMDGOALS))"))

study: $(VENV)/.installed
	@squentropy params --params params.yaml $(addprefix --params ,$(STUDY)) > $(VENV)/params.yaml
	@! grep -qs '^  source: hub' $(VENV)/params.yaml || $(MAKE) --no-print-directory hub
	snakemake --logger squentropy --cores $(CORES) --resources gpu=$(GPUS) $(if $(STUDY),--configfile $(STUDY))

record restore: $(VENV)/.installed-dvc
	@squentropy $@ $(STUDY)

install: $(VENV)/.installed

$(EXTRAS): %: $(VENV)/.installed-%

test: $(VENV)/.installed-test
	pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/.installed-test
	pytest -m slow

test-faults: $(VENV)/.installed-test
	pytest -m slow tests/test_faults.py tests/test_damage.py

test-processes: $(VENV)/.installed-test
	pytest -m slow tests/test_processes.py

SECONDS ?= 600
fuzz: $(VENV)/.installed-test $(VENV)/.installed-fuzz
	for target in parameters readers manifests grammar; do \
	  python tests/fuzz/run.py $$target $(SECONDS) || exit; done

pdf: $(VENV)/.installed
	squentropy pdf report/grammar/index.html report/grammar/report.pdf

test-restore: $(VENV)/.installed-test
	pytest -m slow --numprocesses 2 --dist loadfile tests/test_restore.py tests/test_experiments.py

test-docs: $(VENV)/.installed-test
	pytest -m slow --numprocesses 2 --dist loadfile tests/test_docs.py tests/test_site.py

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "site/index.html"

# ONLY="cancelled or smoke": only tests whose names contain one of these.
test-slurm: $(VENV)/.installed-test
	pytest -m slow tests/test_slurm.py -rs $(if $(ONLY),-k "$(ONLY)")

test-cloud: $(VENV)/.installed-test
	pytest -m slow tests/test_cloud.py

# Each torch is installed in its own folder, which takes precedence over the environment's.
LIBRARY_TESTS := tests/lm tests/test_losses.py tests/test_functional.py tests/test_library.py
TORCH_BOUNDS = $(shell sed -n 's/^ *"torch\(>=[^"]*\)".*/\1/p' pyproject.toml)
OLDEST_TORCH = $(shell echo '$(TORCH_BOUNDS)' | sed 's/>=\([0-9.]*\).*/==\1/')

test-torch: $(VENV)/.installed-test
	for torch in 'torch$(OLDEST_TORCH)' 'torch$(TORCH_BOUNDS)'; do \
	  rm -rf .torch && $(BIN)/python -m pip install --quiet --target .torch "$$torch" && \
	  PYTHONPATH=.torch $(BIN)/python -c 'import torch; print("torch", torch.__version__)' && \
	  PYTHONPATH=.torch pytest $(LIBRARY_TESTS) || exit; \
	done; rm -rf .torch

leaderboard: $(VENV)/.installed
ifneq ($(LOSS),)
	@file=$$(squentropy leaderboard --enter "$(LOSS)") && \
	  $(MAKE) --no-print-directory study STUDY="$$file"
endif
	@squentropy leaderboard

readme: $(VENV)/.installed
	squentropy readme README.md results/grammar report/grammar
	squentropy claims docs/explanation/claims.md $(CLAIMED:%=results/%)

expected: $(VENV)/.installed
	$(BIN)/python benchmarks/expected.py $(wildcard $(CLAIMED:%=results/%))

lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet uv
	PATH=$(CURDIR)/.lock/bin:$$PATH .lock/bin/python tools/lock.py $(if $(UPGRADE),--upgrade)
	rm -rf .lock

# All rules use the same locked environment, so no rule specifies one.
lint: $(VENV)/.installed-test
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	snakefmt --check --diff Snakefile workflow
	@! snakemake --lint 2>&1 | grep '^    \* ' | grep -v 'Specify a conda environment or container'

# The locks pin all packages. For a CUDA build of torch, its dependencies are added.
INSTALL := $(BIN)/python tools/install.py $(if $(TORCH),--torch=$(TORCH))

$(VENV)/bin/python:
	$(PYTHON) -m venv $(if $(filter-out 0,$(SYSTEM)),--system-site-packages) $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@$(INSTALL) requirements.lock
	@touch $@

$(patsubst %,$(VENV)/.installed-%,$(EXTRAS) fuzz): $(VENV)/.installed-%: requirements-%.lock $(VENV)/.installed
	@$(INSTALL) requirements-$*.lock
	@touch $@

TEST_LOCKS := requirements.lock requirements-dvc.lock requirements-hub.lock requirements-test.lock

$(VENV)/.installed-test: $(TEST_LOCKS) pyproject.toml | $(VENV)/bin/python
	@$(INSTALL) $(TEST_LOCKS)
	@touch $(addprefix $(VENV)/.installed,"" -dvc -hub -test)

clean:
	rm -rf $(VENV)
