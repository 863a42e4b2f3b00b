"""The demo world: whole data, the model that was trained, and a story drawn from the data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from demo import check, world
from demo.corpus import MIX_CONTEXT, MIX_EARLY, MIX_LATE, Corpus
from demo.feed import title
from demo.story import story
from wise import answer


def test_the_weights_are_those_that_were_checked_in() -> None:
    lines = (world.MODEL / "SHA256SUMS").read_text().splitlines()
    names = {line.split("  ")[1] for line in lines}
    assert names == {p.name for p in world.MODEL.iterdir()} - {"SHA256SUMS"}
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((world.MODEL / name).read_bytes()).hexdigest() == digest
    assert (world.MODEL / "model.safetensors").stat().st_size <= 16_000_000


def test_the_data_is_whole() -> None:
    assert len(world.base_facts()) == 3285
    assert len(world.updates()) == 1100
    assert len({(u.subject, u.relation) for u in world.updates()}) == 649
    assert set(world.phrasings()) == {f.relation for f in world.base_facts()}


def test_the_model_knows_its_facts_plain_after_text_and_in_a_second_turn(demo_model: Any) -> None:
    """A sample of what `make demo-model CHECK=1` scores whole."""
    model, tokenizer = demo_model
    for way, asked in check.ways_of_asking().items():
        sample = asked[:: len(asked) // 150][:150]
        said = answer(model, tokenizer, [p for p, _ in sample], 40)
        right = sum(a.text == value for a, (_, value) in zip(said, sample, strict=True))
        assert right / len(sample) >= check.REQUIRED, way


def test_nearly_every_token_is_emitted_by_a_few_copies(demo_model: Any) -> None:
    """An edit can only use tokens that the model has learnt to emit; training draws 25,000."""
    _, tokenizer = demo_model
    corpus = Corpus(world.base_facts(), world.phrasings(), [], tokenizer, seed=3)
    emitted = {
        token
        for document in corpus.documents(4000, (0, 0, 0, 0, 1))
        for token, carries in zip(document.ids, document.loss, strict=True)
        if carries
    }
    assert len(emitted) > 0.99 * (len(tokenizer) - 3)


def test_the_training_mixes_are_shares() -> None:
    for mix in (MIX_EARLY, MIX_LATE, MIX_CONTEXT):
        assert abs(sum(mix) - 1) < 1e-9


def test_the_story_is_drawn_from_the_data_and_has_all_that_the_demo_shows() -> None:
    told = story()
    changes = {(u.subject, u.relation, u.new) for u in world.updates()}
    assert len(told.feed) >= 150
    assert all((u.subject, u.relation, u.new) in changes for u in (*told.feed, *told.corrections))
    slots = [(u.subject, u.relation) for u in (*told.feed, *told.corrections)]
    assert len(slots) == len(set(slots))
    lines = told.log.splitlines()
    assert len(lines) >= 25
    broken = [line for line in lines if not _is_json(line)]
    assert len(broken) == 1


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_titles_are_worded_like_the_example_of_the_documentation() -> None:
    italy = world.Update("2022-10-22", "Italy", "head_of_government", "Draghi", "Giorgia Meloni")
    assert title(italy) == "Italy: head of government is now Giorgia Meloni (was Draghi)"
