# Each target does its own set-up; `make test` and `make demo` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint demo-model clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/wised demo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# CHECK=1 only scores the model that is there; STEPS=N trains for another number of steps.
demo-model: $(READY)
	$(BIN)/python -m demo.train $(if $(CHECK),--check) $(if $(STEPS),--steps $(STEPS))

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
