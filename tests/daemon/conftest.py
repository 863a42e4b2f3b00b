"""Fixtures of the tests of the daemon; where a test needs another state it makes its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import new_state

from daemon.state import State
from daemon.store import Store


@pytest.fixture
def state(tmp_path: Path) -> State:
    return new_state(tmp_path)


@pytest.fixture
def store(state: State) -> Iterator[Store]:
    with state.store() as opened:
        yield opened
