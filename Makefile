# make demo   raw videos in, a pretrained encoder and retrieved neighbours out, in about five minutes
# make test   lint, types, all tests
# make bench  what this loader does on this machine beside others, as a page
# make help   everything else
#
# Needs Python >= 3.10 and make; the rest is installed into .venv, once.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo demo-long test lint types format bench bench-check clean distclean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHOICE := $(VENV)/.torch
EXTRAS ?= dev
ARGS ?=
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python)

# Which torch (docs/install.md): nothing = the tested version from pip's own index; `system` = the torch that the
# Python found already has; anything else = one more index (an address or a folder) to find CPU or CUDA builds in.
# The choice is kept in .venv, so it has to be said only once.
TORCH ?=
KEPT := $(shell cat $(CHOICE) 2>/dev/null)
ifneq ($(and $(TORCH),$(wildcard $(STAMP))),)
ifneq ($(TORCH),$(KEPT))
ifeq ($(filter clean distclean help,$(MAKECMDGOALS)),)
$(error $(VENV) was made with TORCH=$(KEPT), not $(TORCH): run `make distclean` first)
endif
endif
endif

help:
	@echo 'make demo        build a small corpus of videos, pretrain on it, retrieve neighbours (about 5 minutes, 2 cores)'
	@echo 'make demo-long   the same, larger: up to 40 minutes on 2 cores, minutes on a GPU'
	@echo 'make test        lint, types, all tests (one of them: make test ARGS="tests/test_repository.py -k arrow")'
	@echo 'make bench       this loader beside others on your videos, at most 20 minutes: VIDEOS=FOLDER, results in runs/bench'
	@echo 'make bench-check ratios against the best peers beside those that are committed, about 2 minutes'
	@echo 'make lint        ruff and mypy only'
	@echo 'make format      let ruff rewrite the code'
	@echo 'make install     only create $(VENV) and install; demo and test do it by themselves'
	@echo 'make clean       remove caches; make distclean removes $(VENV) and runs/ too'
	@echo
	@echo 'PYTHON=...       which Python (>= 3.10) to use'
	@echo 'TORCH=system     use the torch that this Python has (a GPU machine with a CUDA torch)'
	@echo 'TORCH=INDEX      find torch builds in this index as well (docs/install.md)'
	@echo 'ARGS="..."       more arguments for the command behind the target'

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/ascnet demo $(ARGS)

demo-long: $(STAMP)
	@$(BIN)/ascnet demo --long $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check . ; echo 'run: make format' >&2; exit 1; }
	$(BIN)/python -m mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Videos to measure with; where there are none, some are generated.
VIDEOS ?= $(or $(DALI_PIPES_VIDEOS),$(wildcard ../shared/videos))
BENCH_OUT ?= runs/bench
PEERS := $(VENV)/.peers

bench: $(PEERS)
	$(BIN)/python -m bench suite $(VIDEOS) --out $(BENCH_OUT) $(ARGS)

# Short, and with the best peers only: what is asked is whether a change has made ours slower, not who wins.
CHECK ?= bench/results/check-kinetics400-2cores.json
CHECKED := $(or $(wildcard $(VIDEOS)/kinetics400),$(VIDEOS))
bench-check: $(PEERS)
	@[ -n '$(CHECKED)' ] || { echo 'make: no videos: make bench-check VIDEOS=FOLDER' >&2; exit 2; }
	@mkdir -p $(BENCH_OUT)
	$(BIN)/python -m bench loader $(CHECKED) $(CHECK_OPTIONS) --output $(BENCH_OUT)/check.json
	@[ -f $(CHECK) ] || { cp $(BENCH_OUT)/check.json $(CHECK); echo 'kept as $(CHECK)'; }
	$(BIN)/python -m bench compare --only ratios --threshold 0.15 $(CHECK) $(BENCH_OUT)/check.json
CHECK_OPTIONS := --window independent --pairs 24 --rounds 7 --check 12 --candidates ours,decord-best,torchcodec-best,pyav-best

# The peers are optional: one that cannot be installed here is listed as missing.
$(PEERS): $(STAMP)
	@echo 'Installing the peers (once)'
	@for peer in torchcodec decord opencv-python-headless spdl-io faiss-cpu vl-convert-python nvidia-ml-py psutil; do \
	    $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt "$$peer" || echo "  without $$peer" >&2; \
	done; touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find dali_pipes ascnet bench tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) runs

# A virtual environment made from another one does not see that one's packages: then a .pth file leads to its torch.
$(BIN)/python:
	@found=; \
	for python in $(CANDIDATES); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo 'make: no Python >= 3.10 found (tried: $(CANDIDATES)); install one, or name it: make PYTHON=/path/to/python3' >&2; \
	    exit 2; \
	fi; \
	if [ '$(TORCH)' = system ]; then \
	    "$$found" -c 'import torch' 2>/dev/null || { echo "make: TORCH=system, but $$found has no torch" >&2; exit 2; }; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(if $(filter system,$(TORCH)),--system-site-packages) $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "make: $$found cannot create virtual environments (on Debian and Ubuntu: install python3-venv)" >&2; \
	    exit 2; \
	}; \
	if [ '$(TORCH)' = system ] && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
	    place=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	    "$$found" -c 'import torch; print(torch.__path__[0].rpartition("/")[0])' > "$$place/torch-of-system.pth"; \
	fi

# Of what pip prints, only what it is fetching is let through; its errors go to stderr and are not filtered. Where ruff
# is among the packages of TORCH=system it is installed again: it is a program, and only .venv's are found.
$(STAMP): setup.py constraints.txt | $(BIN)/python
	@choice='$(or $(TORCH),$(KEPT))'; constraints=constraints.txt; extra=; \
	case "$$choice" in \
	    '') ;; \
	    system) grep -v '^torch' constraints.txt > $(VENV)/.constraints; constraints=$(VENV)/.constraints ;; \
	    *) extra="--extra-index-url $$choice" ;; \
	esac; \
	echo 'Installing into $(VENV) (once; a minute or more, most of it torch and DALI)'; \
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $$extra -c "$$constraints" \
	    -e '.[$(EXTRAS)]' \
	    | awk '/^Collecting/ { print "  " $$2 } /^Installing collected/ { print "  unpacking" } { fflush() }' \
	&& { [ -x $(BIN)/ruff ] || $(BIN)/python -m pip install -q --ignore-installed --no-deps -c "$$constraints" ruff; } \
	&& printf '%s' "$$choice" > $(CHOICE) && touch $@
