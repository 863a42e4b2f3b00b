import threading
import time

import pytest
from cli_world import add_release, new_state, refuse, wised

from daemon import releases


@pytest.fixture
def state(tmp_path):
    made = new_state(tmp_path)
    add_release(made, 1)
    add_release(made, 2, promote=False, parent=1)
    refuse(made, 3, "too weak")
    return made


@pytest.mark.parametrize(
    ("number", "until", "code"),
    [
        ("1", "promoted", 0),
        ("1", "verified", 0),  # it was, before it was promoted
        ("2", "verified", 0),
        ("2", "promoted", 8),
        ("3", "refused", 0),
        ("r3", "promoted", 6),
        ("3", "verified", 6),
        ("1", "refused", 6),
        ("4", "promoted", 8),  # not there yet
        ("x", "promoted", 2),
    ],
)
def test_what_is_so_already_or_can_not_be_ends_at_once(state, number, until, code):
    began = time.monotonic()
    ran = wised(state, "wait", number, "--for", until, "--timeout", "0.2")
    assert ran.code == code
    assert time.monotonic() - began < 10
    assert bool(ran.out) == (code == 0)


def test_a_timeout_says_what_the_release_is(state):
    assert "release 2 is verified after 0 s" in wised(state, "wait", "2", "--timeout", "0").err
    assert "is not there yet" in wised(state, "wait", "4", "--timeout", "0").err
    assert "wised release show 3" in wised(state, "wait", "3").err


def test_it_waits_until_the_release_is_promoted(state):
    def promote_later():
        time.sleep(0.3)
        with state.store() as store:
            from cli_world import NOW

            releases.promote(state, store, 2, NOW, "seen")

    later = threading.Thread(target=promote_later)
    later.start()
    ran = wised(state, "wait", "2", "--timeout", "30", "--json")
    later.join()
    assert ran.json == {"schema_version": 1, "release": 2, "state": "promoted"}
