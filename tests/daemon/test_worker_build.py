"""What a worker builds on a tiny model: each method, each kind of parent, each precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from worker_world import QUESTIONS, fact, new_model, new_session, request

import wise
from daemon.errors import UsageError
from daemon.messages import Ask, Built, FactText
from daemon.worker.build import build
from daemon.worker.serving import ask
from daemon.worker.session import Session
from wise import manifest, paper

#: one shard of every entry: tiny random models have no room for less
PAPER = {"method": "paper", "paper": {"k": 1, "rho": 1.0}}
RETRIEVE = {"method": "paper", "paper": {"k": 1, "rho": 1.0, "mode": "retrieve"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return new_model(tmp_path_factory.mktemp("model") / "tiny")


def made(session: Session, *args: Any, **options: Any) -> tuple[Path, Built]:
    """Build a candidate and seal it as the daemon does; its folder and figures."""
    asked = request(*args, **options)
    built = build(session, asked)
    manifest.seal(Path(asked.out), {"release": asked.number})
    return Path(asked.out), built


def answers(session: Session, facts: list[FactText], folder: Path | None) -> list[str]:
    """What the session's model says to the facts' edit prompts, as loaded by anyone."""
    prompts = [f.prompts[0] for f in facts]
    memory = wise.load(session.model, folder) if folder else None
    said = wise.answer(session.model, session.tokenizer, prompts, 6, memory)
    if memory:
        memory.detach()
    return [answer.text for answer in said]


def test_the_papers_method_builds_loads_and_generates(model: Path, tmp_path: Path) -> None:
    session, one = new_session(model, **PAPER), fact(0)
    bare = answers(session, [one], None)
    folder, built = made(session, tmp_path, 1, [one])
    assert bare != [one.object]
    assert answers(session, [one], folder) == [one.object]
    assert answers(session, [one], None) == bare
    release = wise.Release.load(folder)
    assert isinstance(release.memory, paper.PaperMemory)
    assert (release.fact_ids, release.shard_facts) == ((0,), (1,))
    assert built.measures["reliability"].right == built.measures["reliability"].asked == 1
    assert built.figures["epsilon"] == release.memory.epsilon > 0


def test_asking_with_the_papers_memory_says_what_was_routed_and_no_cosine(
    model: Path, tmp_path: Path
) -> None:
    session, one = new_session(model, **PAPER), fact(0)
    folder, _ = made(session, tmp_path, 1, [one])
    quiet = QUESTIONS.calibrate[0].prompts[0]
    said = ask(session, Ask(release=str(folder), prompts=(one.prompts[0], quiet))).answers
    assert [s.routed for s in said] == [True, False]
    assert said[0].text == one.object and said[1].text == said[1].bare
    assert {(s.cosine, s.threshold, s.fact) for s in said} == {(None, None, None)}


def test_the_papers_next_batch_is_merged_with_shards_and_not_with_a_merge(
    model: Path, tmp_path: Path
) -> None:
    session = new_session(model, **PAPER)
    first, _ = made(session, tmp_path, 1, [fact(0)])
    second, _ = made(session, tmp_path, 2, [fact(1)], parent=first, kept=(fact(0),))
    old, new = (wise.Release.load(folder).memory for folder in (first, second))
    assert isinstance(old, paper.PaperMemory) and isinstance(new, paper.PaperMemory)
    assert len(new.batches) == 2
    assert torch.equal(new.batches[0][0].values, old.batches[0][0].values)
    shape = (session.site.d_out, session.site.d_in)
    merged = wise.ties([shard.dense(shape) for shard in new.shards], density=1.0)
    (side,) = new.sides(shape)
    assert torch.equal(side.dense(shape), merged)
    assert wise.Release.load(second).shard_facts == (1, 1)


def test_retrieving_replays_the_facts_of_each_earlier_batch(model: Path, tmp_path: Path) -> None:
    session = new_session(model, **RETRIEVE)
    first, _ = made(session, tmp_path, 1, [fact(0)])
    second, _ = made(session, tmp_path, 2, [fact(1)], parent=first, kept=(fact(0),))
    new = wise.Release.load(second).memory
    assert isinstance(new, paper.PaperMemory)
    expected = {
        past: paper.edit(
            session.model,
            session.tokenizer,
            session.site,
            [wise.Fact(1, fact(1).prompts, fact(1).object)],
            [q.prompts[0] for q in QUESTIONS.calibrate],
            paper.Paper(k=1, rho=1.0, mode=paper.Mode.RETRIEVE),
            seed=2,
            texts=session.background.train,
            past=past,
        )[0].values
        for past in ((), ((fact(0).prompts[0],),))
    }
    assert torch.equal(new.batches[1][0].values, expected[((fact(0).prompts[0],),)])
    assert not torch.equal(new.batches[1][0].values, expected[()])
    assert len(new.sides((session.site.d_out, session.site.d_in))) == 2


@pytest.mark.parametrize("added", [[], [fact(4, country=0, name=3)]], ids=["retracted", "replaced"])
def test_the_papers_memory_is_edited_anew_when_a_fact_goes(
    model: Path, tmp_path: Path, added: list[FactText]
) -> None:
    session = new_session(model, **PAPER)
    first, _ = made(session, tmp_path, 1, [fact(0), fact(1)])
    gone = () if added else (fact(0),)
    second, _ = made(session, tmp_path, 2, added, parent=first, kept=(fact(1),), withdrawn=gone)
    never, _ = made(session, tmp_path / "never", 2, [fact(1), *added])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (second / name).read_bytes() == (never / name).read_bytes()
    assert wise.Release.load(second).fact_ids == (1, *(f.id for f in added))


@pytest.fixture(autouse=True)
def room_for_a_second_history(tmp_path: Path) -> None:
    """Some tests compare with a candidate that never knew a fact."""
    (tmp_path / "never").mkdir()


@pytest.mark.parametrize(("old", "new"), [(PAPER, {}), ({}, PAPER)], ids=["to keyed", "to paper"])
def test_changing_the_method_writes_all_facts_anew(
    model: Path, tmp_path: Path, old: Any, new: Any
) -> None:
    first, _ = made(new_session(model, **old), tmp_path, 1, [fact(0)])
    session = new_session(model, **new)
    second, _ = made(session, tmp_path, 2, [fact(1)], parent=first, kept=(fact(0),))
    release = wise.Release.load(second)
    kind = paper.PaperMemory if new else wise.SideMemory
    assert isinstance(release.memory, kind)
    assert (release.fact_ids, release.shard_facts) == ((0, 1), (2,))
    if not new:
        both = [fact(0), fact(1)]
        assert answers(session, both, second) == [f.object for f in both]


@pytest.mark.parametrize("section", [{}, PAPER], ids=["keyed", "paper"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_shards_are_stored_in_the_models_own_type(
    model: Path, tmp_path: Path, dtype: str, section: Any
) -> None:
    session = new_session(model, dtype, **section)
    folder, built = made(session, tmp_path, 1, [fact(0)])
    memory = wise.Release.load(folder).memory
    if isinstance(memory, wise.SideMemory):
        stored = memory.shards[0].delta
    else:
        stored = memory.shards[0].values
    assert str(stored.dtype) == f"torch.{dtype}"
    assert built.measures["reliability"].right == 1


def test_a_withdrawn_fact_is_silent_without_training_and_its_weights_go_with_the_next_compaction(
    model: Path, tmp_path: Path
) -> None:
    session = new_session(model)
    gone, stays = fact(0), fact(1)
    first, _ = made(session, tmp_path, 1, [gone, stays])
    bare = answers(session, [gone], None)
    assert answers(session, [gone, stays], first) == [gone.object, stays.object]

    second, built = made(session, tmp_path, 2, [], parent=first, kept=(stays,), withdrawn=(gone,))
    assert answers(session, [gone], second) == bare
    assert answers(session, [stays], second) == [stays.object]
    assert "iterations" not in built.figures
    before, release = wise.Release.load(first), wise.Release.load(second)
    assert (release.fact_ids, release.shard_facts, release.holds_dropped) == ((1,), (2,), True)
    assert release.calibration == before.calibration  # nothing else changed

    third, _ = made(session, tmp_path, 3, [], parent=second, kept=(stays,), rewritten=(0,))
    release = wise.Release.load(third)
    assert (release.fact_ids, release.shard_facts, release.holds_dropped) == ((1,), (1,), False)
    assert answers(session, [stays], third) == [stays.object]
    never, _ = made(session, tmp_path / "never", 3, [stays])
    alone = wise.Release.load(never).memory
    assert isinstance(release.memory, wise.SideMemory) and isinstance(alone, wise.SideMemory)
    assert torch.equal(release.memory.shards[0].delta, alone.shards[0].delta)


@pytest.mark.parametrize("section", [{}, PAPER], ids=["keyed", "paper"])
def test_the_last_fact_can_be_taken_away_and_another_added(
    model: Path, tmp_path: Path, section: Any
) -> None:
    session, only, new = new_session(model, **section), fact(0), fact(1)
    bare = answers(session, [only], None)
    first, _ = made(session, tmp_path, 1, [only])
    second, _ = made(session, tmp_path, 2, [], parent=first, withdrawn=(only,))
    assert answers(session, [only], second) == bare
    assert wise.Release.load(second).fact_ids == ()
    third, _ = made(session, tmp_path, 3, [new], parent=second)
    assert answers(session, [new], third) == [new.object]
    assert wise.Release.load(third).fact_ids == (1,)


def test_shards_of_live_facts_are_merged_and_healed_and_all_else_stays(
    model: Path, tmp_path: Path
) -> None:
    session = new_session(model, rho=0.9)
    held: list[FactText] = []
    folder = None
    for number in (1, 2, 3):
        new = fact(number - 1)
        folder, built = made(session, tmp_path, number, [new], parent=folder, kept=tuple(held))
        held.append(new)
        assert answers(session, held, folder) == [f.object for f in held]
        assert built.shard_of == tuple(range(number))
        assert [s.inherited for s in built.shards] == [*range(number - 1), None]
    before = wise.Release.load(folder)
    merged, built = made(
        session, tmp_path, 4, [], parent=folder, kept=tuple(held), rewritten=(0, 2)
    )
    after = wise.Release.load(merged)
    assert answers(session, held, merged) == [f.object for f in held]
    assert isinstance(before.memory, wise.SideMemory) and isinstance(after.memory, wise.SideMemory)
    assert after.shard_facts == (1, 2)
    assert built.shard_of == tuple(after.memory.shard_of.tolist()) == (1, 0, 1)
    assert [(s.solved, s.inherited) for s in built.shards] == [(1, 1), (2, None)]
    assert torch.equal(after.memory.shards[0].delta, before.memory.shards[1].delta)
    assert torch.equal(after.memory.keys.vectors, before.memory.keys.vectors)
    assert after.calibration == before.calibration
    assert len(after.memory.shards[1].columns) == round(0.9 * 96)
    measures = {name: (m.right, m.asked) for name, m in built.measures.items()}
    assert measures["unchanged"] == measures["reliability"] == (2, 2)
    assert measures["retention"] == (1, 1)


def test_facts_that_would_fill_a_shard_are_spread_over_several(model: Path, tmp_path: Path) -> None:
    session = new_session(model, shard_room=1e-6)  # the meter says that any two are too many
    three = [fact(n) for n in range(3)]
    folder, built = made(session, tmp_path, 1, three)
    assert [s.solved for s in built.shards] == [1, 1, 1]
    assert answers(session, three, folder) == [f.object for f in three]


def test_a_release_comes_out_the_same_from_a_fresh_worker(model: Path, tmp_path: Path) -> None:
    session, one, two = new_session(model), fact(0), fact(1)
    first, _ = made(session, tmp_path, 1, [one])
    second, _ = made(session, tmp_path, 2, [two], parent=first, kept=(one,))
    fresh, _ = made(new_session(model), tmp_path / "fresh", 2, [two], parent=first, kept=(one,))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (second / name).read_bytes() == (fresh / name).read_bytes()


def test_a_model_spread_by_accelerate_is_edited_and_asked(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the extra `accelerate` isn't installed")
    session, one = new_session(model, device="spread"), fact(0)
    folder, _ = made(session, tmp_path, 1, [one])
    assert answers(session, [one], folder) == [one.object]


def test_a_spread_model_without_accelerate_says_what_to_install(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="accelerate") as caught:
        _ = new_session(model, device="spread").model
    assert "pip install" in caught.value.hint
