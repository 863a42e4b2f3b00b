"""Each target fuzzed for a moment; `make fuzz` does it for ten minutes."""

import importlib.util

import campaign
import pytest

#: of 30 in all
_SECONDS = 8
#: a machine under load may stand still for longer than an input may take
_PATIENCE = 60


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris has wheels for Linux on x86-64 only: pip install 'wised[fuzz]'",
)
@pytest.mark.parametrize("target", campaign.TARGETS)
def test_a_moment_of_fuzzing_breaks_no_promise(target, tmp_path):
    outcome = campaign.run(target, _SECONDS, tmp_path, seed=1, patience=_PATIENCE)
    assert outcome.crashes == ()
    assert outcome.executions > 50
    # It sees what the code does: without that it would be no more than random bytes.
    assert outcome.coverage > 100


def test_every_target_has_its_share_of_a_campaign():
    targets = {path.stem.removeprefix("fuzz_") for path in campaign._HERE.glob("fuzz_*.py")}
    assert targets == set(campaign.TARGETS)
