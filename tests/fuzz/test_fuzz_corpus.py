"""Every input of the fuzzers' corpus keeps the promises; needs no fuzzer."""

import importlib
from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parent / "corpus"
SEEDS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus_keeps_the_promises(seed):
    importlib.import_module(f"fuzz_{seed.parent.name}").check(seed.read_bytes())


def test_each_target_has_inputs_of_its_own():
    targets = {path.stem.removeprefix("fuzz_") for path in CORPUS.parent.glob("fuzz_*.py")}
    assert targets == {path.parent.name for path in SEEDS}
    assert len(SEEDS) >= 30
