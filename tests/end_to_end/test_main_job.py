"""The whole way of a fact, driven as an operator drives it."""

from __future__ import annotations

import json
import time
from typing import Any

from operator_world import World

from demo.world import Update, base_facts


def prompt(update: Update) -> str:
    return f"Q: Who is the head of government of {update.subject}? A:"


def before(update: Update) -> str:
    """What the model of 2017 knows."""
    slot = (update.subject, update.relation)
    return next(f.value for f in base_facts() if (f.subject, f.relation) == slot)


def test_facts_come_in_are_answered_rolled_back_and_retracted(
    world: World, changes: list[Update], demo_model: Any
) -> None:
    """One long story, so that the model is edited once for all of its steps."""
    first, later = changes[:8], changes[8:]
    world.configure()
    world.publish("offices", first)
    reported, row = later[0], {"wrong": before(later[0]), "right": later[0].new}
    (world.folder / "log.jsonl").write_text(
        json.dumps({"prompt": prompt(reported), **row}) + "\n{broken\n"
    )
    log = str(world.folder / "log.jsonl")
    world.wised("source", "add", "log", log, "--name", "reports", "--tier", "normal")
    world.wised("run", "--once")

    # Trusted facts are promoted by rule, the report waits, the broken line stopped nothing.
    states = world.states()
    assert [states[f"{u.subject}: {u.new}"] for u in first] == ["promoted"] * 8
    assert states[f"{reported.subject}: {reported.new}"] == "pending"
    status = world.json("status")
    assert status["release"]["number"] == 1
    assert status["dead_letters"] == 1

    # Every answer is the feed's, with its source; before it was the one of 2017.
    said = world.ask(prompt(first[0]))
    assert said["answer"] == first[0].new
    assert said["bare"] == before(first[0])
    assert said["routed"] is True
    assert said["cosine"] > said["threshold"]
    assert said["fact"]["evidence"][0]["source"] == "offices"
    unrelated = world.ask("Q: What is the capital of Italy? A:")
    assert (unrelated["answer"], unrelated["routed"]) == ("Rome", False)

    # A person approves the report.
    pending = [f["id"] for f in world.json("fact", "list", "--state", "pending")["facts"]]
    world.wised("fact", "approve", str(pending[0]), "--reason", "checked")
    world.wised("run", "--once")
    assert world.ask(prompt(reported))["answer"] == reported.new
    assert world.json("status")["release"]["number"] == 2

    # Rolled back in under a second without a model; the old answer is back; then forward again.
    started = time.monotonic()
    world.wised("rollback", "--reason", "doubts")
    assert time.monotonic() - started < 1
    assert world.ask(prompt(reported))["answer"] == before(reported)
    assert world.ask(prompt(first[1]))["answer"] == first[1].new
    world.wised("release", "promote", "2", "--reason", "no doubts")
    world.wised("resume", "promote")
    assert world.ask(prompt(reported))["answer"] == reported.new

    # A retracted fact leaves with the next release: neither its answer nor its routing survives.
    world.wised("fact", "retract", str(pending[0]), "--reason", "it was wrong")
    world.wised("run", "--once")
    assert world.json("status")["release"]["number"] == 3
    gone = world.ask(prompt(reported))
    assert (gone["answer"], gone["routed"]) == (before(reported), False)
    assert world.ask(prompt(first[2]))["answer"] == first[2].new
    world.wised("audit", "verify")

    # The same release works in any program, and leaves the model as it was.
    import wise

    model, tokenizer = demo_model
    memory = wise.load(model, world.state / "current")
    asked = [prompt(u) for u in first]
    assert [a.text for a in wise.answer(model, tokenizer, asked, 40, memory)] == [
        u.new for u in first
    ]
    memory.detach()
    assert [a.text for a in wise.answer(model, tokenizer, asked, 40)] == [before(u) for u in first]


def test_a_newer_value_takes_over_and_shards_are_merged(
    world: World, changes: list[Update]
) -> None:
    """Three batches, and one small shard may be: the third finds two, which were made one."""
    first, second = changes[0:4], changes[4:8]
    newer = Update("2022-06-01", first[0].subject, first[0].relation, first[0].new, "Ada Lovelace")
    world.configure(max_small_shards=1)
    for name, part in (("a", first), ("b", second), ("c", [newer])):
        world.publish(name, part)
        world.wised("run", "--once")
    states = world.states()
    assert states[f"{first[0].subject}: {first[0].new}"] == "superseded"
    releases = world.json("release", "list")["releases"]
    kinds = [(r["number"], r["kind"], r["facts"]) for r in releases]
    assert kinds[:4] == [(4, "update", 8), (3, "compaction", 8), (2, "update", 8), (1, "update", 4)]
    config = json.loads((world.state / "current" / "adapter_config.json").read_text())
    assert config["shard_facts"] == [8, 1]
    memory = world.json("status")["memory"]
    assert [(m["made_in"], m["live"], m["dead"]) for m in memory] == [(3, 7, 1), (4, 1, 0)]
    lines = (world.state / "current" / "facts.jsonl").read_text("utf-8").splitlines()
    held = [json.loads(line) for line in lines]
    assert {f["object"] for f in held} == {u.new for u in [*first[1:], *second, newer]}
    probes = json.loads((world.state / "current" / "probes.json").read_text())
    kept = [p for p in probes["probes"] if p["kind"] == "retention"]
    assert len(kept) == 7 and all(p["right"] for p in kept)
    assert world.ask(prompt(newer))["answer"] == "Ada Lovelace"


def test_what_the_model_knows_is_no_edit(world: World) -> None:
    world.configure()
    row = {"subject": "Italy", "relation": "capital", "object": "Rome"}
    (world.folder / "log.jsonl").write_text(json.dumps(row) + "\n")
    log = str(world.folder / "log.jsonl")
    world.wised("source", "add", "log", log, "--name", "log", "--tier", "trusted")
    world.wised("run", "--once")
    assert world.states() == {"Italy: Rome": "known"}
    assert world.json("status")["release"]["number"] == 0
