import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from daemon import render

#: text -> what a terminal may see of it
CORPUS = {
    "\x1b[31mred": "\\x1b[31mred",
    "\x1b]8;;http://evil\x1b\\link": "\\x1b]8;;http://evil\\x1b\\link",
    "\x9b2J": "\\x9b2J",
    "a\x85b": "a\\x85b",
    "a\x00b\x07": "a\\x00b\\x07",
    "a\x7fb": "a\\x7fb",
    "one\rtwo": "one\\x0dtwo",
    "abc\u202etxt.exe": "abc⟦U+202E⟧txt.exe",
    "\u2066x\u2069": "⟦U+2066⟧x⟦U+2069⟧",
    "pay\u200bpal": "pay⟦U+200B⟧pal",
    "\ufeffx": "⟦U+FEFF⟧x",
    "a\u2028b": "a⟦U+2028⟧b",
    "a\u00adb": "a\\xadb",
    "\U000e0041": "⟦U+E0041⟧",
    "\ud800": "⟦U+D800⟧",
    "\u3164": "⟦U+3164⟧",
    "[red]x[/red]": "[red]x[/red]",
    ":boom:": ":boom:",
    "Đà Nẵng, 東京, \u0600": "Đà Nẵng, 東京, \u0600",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("text", "shown"), CORPUS.items(), ids=ascii)
def test_what_steers_or_hides_is_shown_by_its_code(text, shown):
    assert render.safe_text(text) == shown


def test_line_feeds_and_tabs_pass_only_where_lines_are_allowed():
    assert render.safe_text("a\n\tb") == "a\\x0a\\x09b"
    assert render.safe_text("a\n\tb\r", multiline=True) == "a\n\tb\\x0d"


@pytest.mark.parametrize("text", CORPUS, ids=ascii)
def test_json_says_the_same_text_with_nothing_dangerous_in_it(text):
    written = render.safe_json({"a": text})
    assert json.loads(written) == {"a": text}
    assert render.safe_text(written, multiline=True) == written


def test_json_keeps_letters_readable():
    assert render.safe_json({"a": "Đà"}, indent=None) == '{"a": "Đà"}'


def test_a_json_document_names_its_schema_version(capsys):
    render.print_json({"x": 1})
    assert capsys.readouterr().out == '{\n  "schema_version": 1,\n  "x": 1\n}\n'


def test_a_table_in_a_pipe_is_tab_separated_and_cuts_nothing(capsys):
    render.table(("a", "b"), [("x" * 300, "y\tz"), (None, True)])
    assert capsys.readouterr().out == f"A\tB\n{'x' * 300}\ty\\x09z\n-\tyes\n"


def test_a_table_on_a_terminal_shows_markup_and_escapes_as_text(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    render.table(("name",), [("[red]x[/red] :boom: \x1b[31m",), ("y" * 100,)])
    shown = screen.getvalue()
    assert "[red]x[/red] :boom: \\x1b[31m" in shown
    assert shown.count("y") == 100
    assert "\x1b" not in shown


def test_fields_align_on_a_terminal_and_take_tabs_in_a_pipe(monkeypatch, capsys):
    pairs = [("id", 12), ("prompts", ("a", "b")), ("none", ())]
    render.fields(pairs)
    assert capsys.readouterr().out == "id\t12\nprompts\ta\nprompts\tb\nnone\t-\n"
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    render.fields(pairs)
    assert screen.getvalue() == "id       12\nprompts  a\nprompts  b\nnone     -\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3 * 3600 + 5 * 60 + 9, "3 h 5 min"),
        (86400 + 7, "1 d"),
        (-5, "0 s"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds, shown):
    assert render.span(timedelta(seconds=seconds)) == shown


def test_what_never_happened_was_never():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert render.ago(None, now) == "never"
    assert render.ago(now - timedelta(hours=2), now) == "2 h ago"
