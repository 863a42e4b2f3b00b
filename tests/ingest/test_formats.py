"""Each format's rows: three as its tool writes them, five as they really go wrong."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ingest_world import ROOT, relations

from ingest import formats, log
from ingest.errors import LogError, RowError
from ingest.extract import Extractor
from ingest.formats import AUTO, FORMATS
from ingest.rows import parse

FIXTURES = Path(__file__).parent / "formats"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXTRACTOR = Extractor(relations())

PM = ("Italy", "head_of_government", "Giorgia Meloni", "Mario Draghi")
CAPITAL = ("Kazakhstan", "capital", "Astana", "Nur-Sultan")
DESK = ("Which desk answers tickets about invoices", "asked", "Billing", "People")


def without_old(fact):
    return (*fact[:3], None)


#: by format what its rows come to: facts, and codes of those that are malformed. Two codes: by
#: the format's name, and by its keys alone.
EXPECTED = {
    "native": (
        [PM, PM, without_old(DESK)],
        [
            ("row.missing", "row.unknown_format"),
            "row.empty",
            "row.not_text",
            "row.unknown_relation",
            "row.not_text",
        ],
    ),
    "easyedit": (
        [
            (
                "What university did Watts Humphrey attend",
                "asked",
                "University of Michigan",
                "Illinois Institute of Technology",
            ),
            PM,
            without_old(CAPITAL),
        ],
        [
            ("row.missing", "row.unknown_format"),
            "row.empty",
            "row.not_text",
            "row.empty",
            "row.not_text",
        ],
    ),
    "openai-dpo": (
        [PM, without_old(CAPITAL), DESK],
        [
            "row.no_user_message",
            "row.not_a_list",
            "row.empty",
            "row.not_text",
            "row.no_difference",
        ],
    ),
    "openai-evals": (
        [without_old(PM), without_old(CAPITAL), without_old(DESK)],
        [
            ("row.missing", "row.unknown_format"),
            "row.empty",
            "row.no_user_message",
            "row.not_text",
            "row.empty",
        ],
    ),
    "trl": (
        [PM, CAPITAL, DESK],
        [
            "row.missing",
            ("row.missing", "row.unknown_format"),
            "row.no_difference",
            "row.no_answer",
            "row.not_a_message",
        ],
    ),
    "ms-swift": (
        [PM, CAPITAL, DESK],
        [
            ("row.missing", "row.unknown_format"),
            "row.not_a_list",
            "row.no_answer",
            "row.not_text",
            "row.no_user_message",
        ],
    ),
    "langfuse-corrections": (
        [PM, CAPITAL, DESK],
        [
            "row.no_correction",
            "row.not_joined",
            "row.not_joined",
            "row.empty",
            "row.no_user_message",
        ],
    ),
    "langfuse-dataset": (
        [without_old(PM), without_old(CAPITAL), without_old(DESK)],
        [
            "row.archived",
            "row.empty",
            "row.not_text",
            "row.ambiguous_field",
            ("row.missing", "row.unknown_format"),
        ],
    ),
    "langsmith-feedback": (
        [PM, without_old(CAPITAL), DESK],
        [
            "row.no_correction",
            "row.no_correction",
            "row.not_joined",
            "row.empty",
            "row.ambiguous_field",
        ],
    ),
    "langsmith-examples": (
        [without_old(PM), without_old(CAPITAL), without_old(DESK)],
        [
            "row.empty",
            "row.empty",
            "row.ambiguous_field",
            ("row.missing", "row.unknown_format"),
            "row.no_answer",
        ],
    ),
    "argilla": (
        [PM, CAPITAL, (*DESK[:2], "billing", None)],
        [
            "row.not_completed",
            "row.disagreement",
            "row.no_answer",
            "row.not_text",
            "row.bad_shape",
        ],
    ),
    "label-studio": (
        [PM, without_old(CAPITAL), without_old(DESK)],
        [
            "row.cancelled",
            "row.no_answer",
            "row.no_answer",
            "row.empty",
            "row.disagreement",
        ],
    ),
}


def read(path, format):
    return log.read(path, None, EXTRACTOR, now=NOW, format=format)


def facts(poll):
    found = [item.candidates[0] for item in poll.items]
    return [(fact.subject, fact.relation, fact.object, fact.old) for fact in found]


def codes(poll):
    return [dead.code for dead in poll.dead]


def rows_of(name):
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]


def test_every_format_has_its_rows_and_every_row_its_expectation():
    assert sorted(EXPECTED) == sorted(FORMATS)
    assert sorted(path.stem for path in FIXTURES.iterdir()) == sorted(FORMATS)
    for good, bad in EXPECTED.values():
        assert (len(good), len(bad)) == (3, 5)


@pytest.mark.parametrize("name", EXPECTED)
def test_rows_of_a_named_format_are_facts_or_say_why_not(name):
    good, bad = EXPECTED[name]
    poll = read(FIXTURES / f"{name}.jsonl", name)
    assert facts(poll) == good
    assert codes(poll) == [code if isinstance(code, str) else code[0] for code in bad]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_rows_keys_tell_its_format(name):
    good, bad = EXPECTED[name]
    poll = read(FIXTURES / f"{name}.jsonl", AUTO)
    assert facts(poll) == good
    assert codes(poll) == [code if isinstance(code, str) else code[1] for code in bad]


def test_a_log_may_mix_formats(tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"".join((FIXTURES / f"{name}.jsonl").read_bytes() for name in EXPECTED))
    assert facts(read(path, AUTO)) == [fact for good, _ in EXPECTED.values() for fact in good]


@pytest.mark.parametrize("name", EXPECTED)
def test_no_value_of_any_type_in_any_place_is_more_than_a_dead_letter(name):
    """Tools change their exports; whatever a key holds then, the tail goes on."""
    for row in rows_of(name):
        for place in places(row):
            for value in (None, 7, True, "", "x", [], [None], ["x"], {}, {"x": 1}, [{"role": 1}]):
                changed = put(row, place, value)
                try:
                    EXTRACTOR.from_row(FORMATS[name].read(changed))
                except RowError as why:
                    assert why.message
                for name_or_auto in (name, AUTO):
                    try:
                        parsed = parse(json.dumps(changed).encode(), name_or_auto)
                    except RowError:
                        continue
                    assert isinstance(parsed.name, str | None)
                    assert isinstance(parsed.wanted, str | None)


def places(value, at=()):
    """Yield the way to every value within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield (*at, key)
        if isinstance(one, dict | list):
            yield from places(one, (*at, key))


def put(value, at, new):
    """Return a copy with another value in one place."""
    copy = json.loads(json.dumps(value))
    holder = copy
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = new
    return copy


def test_a_row_that_fits_two_formats_is_refused_with_both():
    row = {"prompt": "p", "right": "r", "chosen": "r", "rejected": "w"}
    with pytest.raises(RowError) as caught:
        formats.chosen(row)
    assert caught.value.code == "row.ambiguous_format"
    assert "native and trl" in caught.value.message
    assert formats.chosen(row, "trl").name == "trl"


def test_a_row_that_fits_no_format_is_refused_with_all_that_are_known():
    with pytest.raises(RowError) as caught:
        formats.chosen({"question": "q", "answer": "a"})
    assert caught.value.code == "row.unknown_format"
    assert "question, answer" in caught.value.message
    for one in FORMATS.values():
        assert f"{one.name} ({one.keys})" in caught.value.message


def test_an_unknown_format_is_refused_before_the_log_is_read(tmp_path):
    with pytest.raises(LogError) as caught:
        read(tmp_path / "missing.jsonl", "csv")
    assert caught.value.code == "log.unknown_format"
    assert "label-studio" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "dates"),
    [
        ("native", ["2022-10-22T10:00:00+00:00", None, None]),
        ("langfuse-corrections", ["2024-05-30T09:00:00+00:00"] * 2 + ["2024-05-30T08:00:00+00:00"]),
        ("langfuse-dataset", ["2024-05-30T08:00:00+00:00"] * 3),
        ("langsmith-feedback", ["2024-05-30T09:00:00+00:00"] * 3),
        ("langsmith-examples", ["2024-05-30T08:00:00+00:00"] * 3),
        ("label-studio", ["2024-05-30T09:00:00.728378+00:00"] * 3),
        ("trl", [None] * 3),
    ],
)
def test_a_correction_has_the_date_of_its_last_change(name, dates):
    found = [item.entry.published for item in read(FIXTURES / f"{name}.jsonl", name).items]
    assert [one and one.isoformat() for one in found] == dates


def test_keys_that_say_nothing_here_are_kept_as_evidence():
    poll = read(FIXTURES / "trl.jsonl", "trl")
    assert json.loads(poll.items[2].entry.raw)["score_chosen"] == 8.5
    poll = read(FIXTURES / "langsmith-feedback.jsonl", "langsmith-feedback")
    assert poll.items[0].entry.text == "outdated"


def test_a_wrong_answer_too_long_for_a_fact_does_not_cost_the_right_one():
    first, second, _ = read(FIXTURES / "openai-dpo.jsonl", "openai-dpo").items
    assert len(json.loads(second.entry.raw)["non_preferred_output"][0]["content"]) > 300
    assert (first.candidates[0].old, second.candidates[0].old) == ("Mario Draghi", None)


def test_the_documentation_lists_every_format_with_its_keys():
    text = (
        (ROOT / "docs" / "sources.md")
        .read_text()
        .partition("## Correction logs")[2]
        .partition("\n## ")[0]
    )
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(FORMATS)
    for line, one in zip(lines, FORMATS.values(), strict=True):
        assert line.startswith(f"| `{one.name}` | {one.title} |")
