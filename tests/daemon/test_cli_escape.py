"""Stored text comes from strangers: no command may let it steer the terminal or hide."""

import json
import unicodedata

import pytest
from cli_world import EDITED, NOW, add_entry, add_fact, add_release, add_source, new_state, wised

from daemon.store import timestamp

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\ \x9b31m\x85\x7f\x00\x08 "
    "\u202egnp.exe\u2066\u200b\u2060\ufeff\u2028 [red]markup[/red] :boom: \r\nfact\tforged"
)
PLAIN = "[red]markup[/red] :boom:"
COMMANDS = [
    ["fact", "list"],
    ["fact", "show", "1"],
    ["source", "list"],
    ["source", "show", "bad"],
    ["release", "list"],
    ["release", "show", "1"],
    ["release", "diff", "0", "1"],
    ["status"],
    ["audit", "list"],
    ["logs"],
]


def dangerous(text: str) -> set[str]:
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in kinds}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state in which every text that a stranger can bring is hostile."""
    made = new_state(tmp_path_factory.mktemp("escape"))
    source = add_source(
        made,
        "bad",
        kind="log",
        location=HOSTILE,
        failures=4,
        last_error=HOSTILE,
    )
    entry = add_entry(made, source, HOSTILE, HOSTILE)
    texts = {"relation": HOSTILE, "entry": entry, "quote": HOSTILE, "events": EDITED}
    fact = add_fact(made, HOSTILE, HOSTILE, **texts)
    add_release(made, 1, (fact,), measures=json.dumps({HOSTILE: {"right": 1, "asked": 2}}))
    with made.store(actor=HOSTILE) as store, store.write():
        store.transition("fact", fact, "retract", NOW, HOSTILE)
        store.transition("release", 0, "retain", NOW, HOSTILE)
        store.db["hold"].insert({"kind": "edit", "reason": HOSTILE, "since": timestamp(NOW)})
    line = json.dumps({"event": HOSTILE, HOSTILE: HOSTILE}, ensure_ascii=False)
    log = f"{line}\nraw {HOSTILE}\n"
    (made.logs / "wised.jsonl").write_text(log, "utf-8", newline="")
    return made


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_text_for_people_is_harmless(state, command):
    ran = wised(state, *command)
    assert ran.code == 0
    assert dangerous(ran.out + ran.err) == set()
    assert PLAIN in ran.out
    assert "\\x1b" in ran.out
    assert not any(line.startswith("fact\tforged") for line in ran.out.splitlines()[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_json_is_harmless_too_and_still_says_the_same(state, command):
    ran = wised(state, *command, "--json")
    assert dangerous(ran.out + ran.err) == set()
    assert HOSTILE in texts(ran.json)


def texts(value: object) -> set[str]:
    """Every text in a JSON document, keys and texts of JSON within texts too."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*(texts(v) for pair in value.items() for v in pair))
    return set().union(*map(texts, value)) if isinstance(value, list) else set()


def test_what_the_operator_typed_is_harmless_in_an_error(state):
    for command in (["source", "show", HOSTILE.replace("\0", "")], ["fact", "show", HOSTILE]):
        ran = wised(state, *command)
        assert ran.code in (2, 3)
        assert dangerous(ran.err) == set()
        assert dangerous(wised(state, *command, "--json").err) == set()
