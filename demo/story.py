"""What the demo's sources say, drawn from the data: a feed of 2021 and a correction log."""

from __future__ import annotations

import json
from dataclasses import dataclass

from demo.world import Phrasing, Update, base_facts, phrasings, updates

YEAR = "2021"
CORRECTIONS = 17  #: rows of the log that no other source says
#: titles that a person writing a correction leaves out
TITLES = ("Prime Minister ", "President ", "Chancellor ", "Premier ")


@dataclass(frozen=True, slots=True)
class Story:
    """The demo's input, and what each part of it should become."""

    feed: tuple[Update, ...]  #: changes that the feed brings
    corrections: tuple[Update, ...]  #: changes that only the log brings
    repeated: tuple[Update, ...]  #: of the feed's, said again by the log in other words
    disputed: Update  #: of the feed's; the log insists on the old value
    known: tuple[str, str, str]  #: subject, relation, value that the model has known all along
    log: str  #: the correction log, JSON Lines, one of them malformed


def latest(before: str) -> dict[tuple[str, str], Update]:
    """Return each slot's last change before an ISO day."""
    state: dict[tuple[str, str], Update] = {}
    for update in updates():
        if update.date < before:
            state[update.subject, update.relation] = update
    return state


def story() -> Story:
    """Return the demo's input."""
    state = latest(str(int(YEAR) + 1))
    feed = [u for u in state.values() if u.date.startswith(YEAR)]
    asked = phrasings()
    earlier = [u for u in state.values() if u.date < YEAR and u.new[:1].isalpha()]
    corrections = earlier[:: len(earlier) // CORRECTIONS][:CORRECTIONS]
    titled = [u for u in feed if u.relation == "head_of_government" and u.new.startswith(TITLES)]
    repeated, disputed = titled[:6], titled[6]
    capital = next(f for f in base_facts() if f.subject == "Italy" and f.relation == "capital")
    rows = [_correction(u, asked[u.relation]) for u in corrections]
    rows += [_repetition(u, i, asked[u.relation]) for i, u in enumerate(repeated)]
    rows.append(
        {"subject": disputed.subject, "relation": disputed.relation, "object": disputed.old}
    )
    rows.append({"subject": capital.subject, "relation": capital.relation, "object": capital.value})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines.insert(3, lines[0][: len(lines[0]) // 2])  # cut off in the middle, as a crash leaves it
    return Story(
        tuple(feed),
        tuple(corrections),
        tuple(repeated),
        disputed,
        (capital.subject, capital.relation, capital.value),
        "\n".join(lines) + "\n",
    )


def _correction(update: Update, asked: Phrasing) -> dict[str, str]:
    """Return what a user reports: the prompt, what the model said and what it should say."""
    prompt = asked.prompts[0].format(subject=update.subject)
    return {"prompt": prompt, "wrong": update.old, "right": update.new}


def _repetition(update: Update, index: int, asked: Phrasing) -> dict[str, str]:
    """Say what the feed said in other words: another question, the name without its title."""
    name = next(update.new.removeprefix(t) for t in TITLES if update.new.startswith(t))
    prompts = (
        f"Who leads {update.subject} as head of its government nowadays?",
        asked.held_out[0].format(subject=update.subject),
        asked.prompts[1].format(subject=update.subject),
    )
    return {"prompt": prompts[index % len(prompts)], "wrong": update.old, "right": name}
