"""What the operator does to a source while it is polled holds for what that poll brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_polling import UPDATES, add_source
from world import START

from daemon import polling
from daemon.cli import moving, registry
from daemon.polling import Polled
from daemon.state import State
from daemon.store import Store, facts
from demo.feed import document, served
from ingest import IngestError, Poll
from ingest.networks import Allowed

ROW = {"subject": "Italy", "relation": "head_of_government", "object": "Mario Draghi"}
Act = Callable[[Store], object]


def change(event: str) -> Act:
    """Pause, resume or remove the feed."""
    return lambda store: registry.change(store, "feed", event, "", START)


def move(store: Store) -> None:
    moving.set_url(store, "feed", "https://example.org/new.atom", "", START)


def polled(state: State, store: Store, *acts: Act, fails: IngestError | None = None) -> Polled:
    """Poll the one source; an operator acts after it was read and before that is stored."""
    (source,) = polling.due(store, START)

    def look(*asked: object) -> Poll:
        found = polling.fetch(*asked)  # type: ignore[arg-type]
        with state.store("operator") as other:
            for act in acts:
                act(other)
        if fails is not None:
            raise fails
        return found

    config = state.config()
    return polling.poll(store, source, config, polling.extractor(config), START, look)


def row_of(store: Store) -> dict[str, object]:
    (row,) = store.rows("SELECT * FROM source")
    return dict(row)


def is_empty(store: Store) -> bool:
    return not facts.in_states(store, ("received",)) and not store.rows("SELECT 1 FROM entry")


@pytest.mark.parametrize("event", ["pause", "remove"])
def test_a_source_paused_or_removed_meanwhile_brings_nothing_and_goes_on_where_it_was(
    state: State, store: Store, event: str
) -> None:
    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url)
        before = row_of(store)
        found = polled(state, store, change(event))
        assert found.error is not None and found.error.startswith("poll.overtaken")
        assert is_empty(store)
        assert row_of(store) == before | {"state": {"pause": "paused", "remove": "removed"}[event]}


def test_a_source_that_is_resumed_brings_all_of_it(state: State, store: Store) -> None:
    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url)
        polled(state, store, change("pause"))
        change("resume")(store)
        assert polled(state, store).facts == len(UPDATES)


def test_a_source_that_was_paused_for_a_moment_only_brings_what_it_says(
    state: State, store: Store
) -> None:
    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url)
        assert polled(state, store, change("pause"), change("resume")).facts == len(UPDATES)


def test_a_feed_that_was_given_another_url_brings_nothing_of_the_old_one(
    state: State, store: Store
) -> None:
    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url)
        found = polled(state, store, move)
    assert found.error is not None and is_empty(store)
    assert row_of(store)["etag"] is None
    assert [s.location for s in polling.due(store, START)] == ["https://example.org/new.atom"]


@pytest.mark.parametrize(
    ("tier", "log_format"), [("trusted", "easyedit"), ("normal", "auto")], ids=str
)
@pytest.mark.parametrize("fails", [None, IngestError("log.unreadable", "no right to")])
def test_a_log_added_anew_in_another_way_brings_nothing_of_the_old_one(
    state: State,
    store: Store,
    tmp_path: Path,
    tier: str,
    log_format: str,
    fails: IngestError | None,
) -> None:
    log = tmp_path / "corrections.jsonl"
    log.write_text(json.dumps(ROW) + "\n")
    add_source(store, "log", str(log), name="feed")

    def add_anew(other: Store) -> None:
        new = registry.NewSource("feed", "log", str(log), tier, Allowed(), log_format)
        registry.add(other, new, START)

    assert polled(state, store, change("remove"), add_anew, fails=fails).error is not None
    assert is_empty(store)
    row = row_of(store)
    assert (row["log_offset"], row["failures"]) == (None, 0)
