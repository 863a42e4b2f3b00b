"""Fixtures of the tests of ingest."""

import pytest
from hostile_world import World, served


@pytest.fixture
def world(tmp_path):
    with served() as site:
        made = World(tmp_path, site)
        yield made
        made.store.close()
