# make study                            set up, then the whole default study
# make study STUDY=studies/smoke.yaml   another study; several overlays: STUDY="a.yaml b.yaml"
# make record                           put a finished study under DVC; STUDY as above
# make restore                          bring a recorded study from the remote storage; STUDY as above
# make install                          set up what `make study` needs, and no more
# make dvc                              DVC too, for `dvc repro`; record and restore do it themselves
# make hub                              what stories from the Hugging Face hub need too
# make slurm                            what a study on a Slurm cluster needs too
# make kubernetes                       what a study in pods needs too, its files in S3
# make test                             set up, then the test suite
# make test-slow                        the tests that take minutes
# make test-faults                      those of them that kill processes, damage files, fill disks
# make test-processes                   those of them that train one run in several processes
# make test-restore                     those of them that restore a study, or run experiments of DVC's
# make docs                             build the documentation into site/
# make test-docs                        run what the documentation says can be run; look at its pages
# make test-slurm                       those of them that need a Slurm, which they start themselves
# make test-cloud                       those of them that run a study in pods, its files in S3
# make fuzz                             look for bytes that parameters, readers or parsers do not take:
#                                       ten minutes each; SECONDS=60: less
# make pdf                              print the default study's report as a PDF, by Chromium
# make test-torch                       the library's, with the oldest and the newest torch allowed
# make readme                           put the committed studies' answers into README.md and the docs
# make expected                         write down what is normal: their losses and times, for the docs
# make leaderboard                      the table of losses; LOSS=my_losses.py:name: run this one first
# make lock                             pin what is not pinned yet in requirements*.lock; UPGRADE=1: all anew
# make lint                             formatting, types, what imports what, and other checks
# make clean                            remove the environment
#
# PYTHON   the interpreter that .venv is made of
# SYSTEM   1: use torch as it is installed already, as GPU images have it
# TORCH    cpu or cuda: the build for these; any: as the package index has it, in a build whose hash
#          is not in the lock; else the build that pip takes by its settings
# CORES    how many cores the study may use
# GPUS     how many GPUs it may use; each trains one cell at a time

PYTHON ?= python3
CORES  ?= all
STUDY  ?=
LOSS   ?=
SYSTEM ?=
TORCH  ?=
GPUS   ?= $(shell found=$$(nvidia-smi --list-gpus 2> /dev/null) || found=; printf %s "$$found" | grep -c .)

# Said on make's command line alone: other programs export a SYSTEM of theirs.
ifneq ($(origin SYSTEM),command line)
SYSTEM :=
endif
ifneq ($(origin TORCH),command line)
TORCH :=
endif

# Where the home is missing or cannot be written to, caches lie here.
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
# Byte code is written once; without it, every process of the study compiles torch anew.
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

# ONLY="cancelled or smoke": those of them whose names hold one of these.
test-slurm: $(VENV)/.installed-test
	pytest -m slow tests/test_slurm.py -rs $(if $(ONLY),-k "$(ONLY)")

test-cloud: $(VENV)/.installed-test
	pytest -m slow tests/test_cloud.py

# Each torch lies in a folder of its own, which goes before the environment's.
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

# One locked environment serves every rule, so none names its own.
lint: $(VENV)/.installed-test
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	snakefmt --check --diff Snakefile workflow
	@! snakemake --lint 2>&1 | grep '^    \* ' | grep -v 'Specify a conda environment or container'

# The locks pin every package. What a CUDA build of torch brings along is added where it is one.
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
