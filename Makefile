# Each target does its own set-up; `make test` and `make demo` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# As the daemon's workers have it: on a shared machine, OpenMP's own choice can cost a factor of 15.
export GOMP_SPINCOUNT ?= 1000

.PHONY: setup demo test lint fuzz soak bench bench-edit bench-edit-large bench-lifelong bench-ingest bench-day bench-idle bench-cli demo-model clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/wised demo

test: $(READY)
	$(BIN)/python -m pytest

# Coverage-guided, of the feed parser, the log's tail and formats, and the text functions.
SECONDS ?= 600
fuzz: $(READY)
	$(BIN)/python tests/fuzz/campaign.py --seconds $(SECONDS)

# What the demo's final release answers, over more prompts than the gate asks.
bench: $(READY)
	$(BIN)/python -m bench.main_job

# The default and the paper's method side by side on the demo model; about 30 minutes.
bench-edit: $(READY)
	$(BIN)/python -m bench.edit --plot docs/router-cost.svg

# The cost at the shape of a 7B model, on a GPU; SMALL=1 tries it on any machine.
bench-edit-large: $(READY)
	$(BIN)/python -m bench.edit_large $(if $(SMALL),--small)

# 1,100 updates through the daemon, then 300 of them the paper's way; about 50 minutes.
bench-lifelong: $(READY)
	$(BIN)/python -m bench.lifelong --plot docs/lifelong.png

# Deduplication, lookups, embedding, storing and parsing; about 10 minutes.
# DOCUMENTS names a folder of feeds to parse; by default those that the fuzzers start from.
bench-ingest: $(READY)
	$(BIN)/python -m bench.ingest --documents $(or $(DOCUMENTS),tests/fuzz/corpus/feed)

# A daemon's loop through a day under a fake clock, 50 feeds; about 10 minutes.
bench-day: $(READY)
	$(BIN)/python -m bench.day

# A daemon with nothing to do: its memory, and the share of a core that it takes; a minute.
bench-idle: $(READY)
	$(BIN)/python -m bench.idle

# The operator's commands as processes, on a store of 100,000 facts; about a minute.
bench-cli: $(READY)
	$(BIN)/python -m bench.cli

# A real daemon killed at random moments; 200 kills take about half an hour.
soak: $(READY)
	$(BIN)/python -m bench.soak --kills $(or $(KILLS),200)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains anew, about 50 minutes; CHECK=1 only scores the model that is there.
demo-model: $(READY)
	$(BIN)/python -m demo.train $(if $(CHECK),--check)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
