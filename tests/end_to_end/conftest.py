"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from operator_world import World

from demo.story import latest
from demo.world import Update


@pytest.fixture
def changes() -> list[Update]:
    """Real changes of 2021, one a country, of heads of government."""
    found = [
        u
        for (_, relation), u in latest("2022").items()
        if relation == "head_of_government" and u.date.startswith("2021") and u.new.isascii()
    ]
    assert len(found) >= 12
    return found[:12]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)
