# Every target runs the set-up it needs: libtorch, the build, the data. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help reproduce-table figures report paper smoke test test-resume test-slurm test-figures test-report sweeps check bench mutants parity gpu-check wheel golden setup build data

# Settings, given on the command line: make reproduce-table SEEDS=3 DEVICE=cuda:0 IMAGENET=/data/ILSVRC2012
EXPERIMENT := experiments/fashion-mnist-selectors.toml
PAPER := experiments/imagenet/*.toml experiments/cub200/*.toml experiments/cifar10/*.toml
SEEDS :=
DEVICE :=
DATA :=
JOBS :=
IMAGENET :=
CUB :=
CIFAR10 :=
MIRROR :=
IMAGES :=
LATENCY := yes
CRATES :=
FILES :=

# Clones share one build folder if it exists (mkdir -p ~/.cache/thinet/target); else each has its own `target`.
ifndef CARGO_TARGET_DIR
  shared_build := $(shell d="$${XDG_CACHE_HOME:-$$HOME/.cache}/thinet/target"; if [ -d "$$d" ]; then echo "$$d"; fi)
  ifneq ($(shared_build),)
    export CARGO_TARGET_DIR := $(shared_build)
  endif
endif

thinet := cargo run --quiet --release --package thinet-cli --
mirror_option := $(if $(MIRROR),--mirror '$(MIRROR)')
data_options := $(if $(DATA),--data '$(DATA)')
device_option := $(if $(DEVICE),--device $(DEVICE))
jobs_option := $(if $(JOBS),--jobs $(JOBS))
run_options := $(if $(SEEDS),--seeds $(SEEDS)) $(device_option) $(data_options) $(jobs_option)
# The same nets cut without tuning, where EXPERIMENT has such a spec beside it.
selection := $(filter-out $(EXPERIMENT),$(wildcard $(patsubst %-selectors.toml,%-selection.toml,$(EXPERIMENT))))
paper_options := $(if $(IMAGENET),--imagenet '$(IMAGENET)') $(if $(CUB),--cub '$(CUB)') $(if $(CIFAR10),--cifar10 '$(CIFAR10)') $(device_option) $(jobs_option)
closing_options := $(PAPER) $(paper_options) --study '$(EXPERIMENT)' $(if $(selection),--study '$(selection)')

help: ## List the targets (what `make` alone does)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Settings of reproduce-table: EXPERIMENT=$(EXPERIMENT) SEEDS=3 DEVICE=cuda:0 DATA=folder JOBS=2'
	@echo '                             IMAGENET=/path/to/ILSVRC2012 CUB=/path/to/CUB_200_2011 LATENCY=no'
	@echo '                             CIFAR10=/path/to/cifar-10-batches-bin'
	@echo '                             MIRROR=https://folder/of/archives (where the official ones cannot be reached)'

reproduce-table: data ## Prune real networks with every method and print the tables beside the paper's numbers
	$(thinet) table compression figure4-flops
	@# A study in which something failed (1) still prints its tables; its status becomes that of the target.
	$(thinet) run '$(EXPERIMENT)' $(run_options); status=$$?; [ $$status -le 1 ] || exit $$status; \
	$(if $(selection),$(thinet) run '$(selection)' $(run_options); one=$$?; [ $$one -le 1 ] || exit $$one; [ $$status -ne 0 ] || status=$$one;) \
	$(if $(filter no,$(LATENCY)),,$(thinet) latency $(device_option) || exit $$?;) \
	$(thinet) paper $(closing_options) --closing never; one=$$?; [ $$one -le 1 ] || exit $$one; [ $$one -eq 0 ] || status=1; \
	THINET= scripts/figures.sh || [ $$status -ne 0 ] || status=1; \
	THINET= scripts/report.sh || [ $$status -ne 0 ] || status=1; \
	$(thinet) paper $(closing_options) --closing only && exit $$status

figures: build ## Draw the figures of results/tables, as Vega-Lite, SVG and PNG in results/figures
	@THINET= scripts/figures.sh

report: build ## Write the page of all figures and tables, results/report/index.html
	@THINET= scripts/report.sh

# After the figures, so that text and pictures are of the same tables.
paper: figures ## Typeset the paper from results/tables and results/figures as paper/thinet-rs.pdf, and check its numbers
	@.venv-paper/bin/python paper/check.py
	@.venv-paper/bin/python paper/build.py

smoke: EXPERIMENT := experiments/smoke.toml
smoke: data ## Run a study of a tiny network, in under two minutes
	$(thinet) run '$(EXPERIMENT)' $(run_options)

test: setup ## Check formatting and lints, run every test; the last line counts them
	@scripts/test.sh

check: setup ## Check formatting and lints only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test-resume: build ## Kill a sweep twenty times and compare its bytes with those of an unbroken one
	@THINET= scripts/test-resume.sh

test-slurm: build ## Run a sweep through a real Slurm on this machine (root; installs slurm-wlm and munge)
	@THINET= scripts/test-slurm.sh

test-figures: build ## Compare the figures and the paper of the committed tables with the committed ones
	@THINET= scripts/test-figures.sh

test-report: build ## Use the report in headless Chromium (as root installs Debian's package) and check its wheel and bad input
	@THINET= scripts/test-report.sh

sweeps: build ## Measure what sweeps cost besides computing (workers, overhead, shared work, status)
	@THINET= scripts/sweeps.sh

bench: setup ## Measure selection, moments, calibration and training (release build)
	cargo bench --package thinet-bench

mutants: setup ## Change the code in one place at a time and list what no test notices (CRATES='graph seed'; an hour)
	@CRATES='$(CRATES)' FILES='$(FILES)' scripts/mutants.sh

parity: setup ## Compare images, loader and weights with Pillow, torchvision and PyTorch (IMAGES=folder of JPEGs)
	IMAGES='$(IMAGES)' scripts/parity.sh

gpu-check: setup ## Build a folder that checks a CUDA machine without cargo or a network
	scripts/gpu-check.sh

wheel: setup ## Build a Python wheel of the program, for an environment with torch 2.11.0: results/wheel
	@scripts/wheel.sh

golden: setup ## Compute the PyTorch golden files of the tests again
	scripts/golden.sh

setup: ## Find or install libtorch, check the tools; part of every other target
	@scripts/setup.sh

build: setup ## Build the `thinet` program (release)
	cargo build --release --package thinet-cli

data: build ## Fetch the dataset that EXPERIMENT needs
	$(thinet) data fetch --for '$(EXPERIMENT)' $(data_options) $(mirror_option)
