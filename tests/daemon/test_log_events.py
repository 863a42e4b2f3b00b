"""The names of the log, three times: in the code that logs, in the enumeration, in the docs."""

import ast
import re
from pathlib import Path

import daemon
from daemon.log_events import EVENTS, LIBRARY, OUTCOMES

ROOT = Path(daemon.__file__).resolve().parents[1]
METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def is_log(node):
    """``log``, ``self.log``, ``self._log``, ``service.log``: what the code calls a logger."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name.lstrip("_") in ("log", "logger")


def uses(tree):
    """Every use of a logger's method: the node and, where it is called, the first argument."""
    called = {id(n.func): n.args[0] if n.args else None for n in ast.walk(tree) if is_call(n)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in METHODS and is_log(node.value):
            yield node, called.get(id(node))


def is_call(node):
    return isinstance(node, ast.Call)


def names_in(path):
    """The names that a file logs; fails where one can't be read from the source."""
    for node, first in uses(ast.parse(path.read_text("utf-8"))):
        where = f"{path}:{node.lineno}"
        if isinstance(first, ast.Constant):
            yield first.value
        else:
            of = first.value if isinstance(first, ast.Subscript) else None
            assert getattr(of, "id", "") == "OUTCOMES", f"{where}: not a name written out"
            yield from OUTCOMES.values()


def logged():
    files = [*(ROOT / "daemon").rglob("*.py"), *(ROOT / "ingest").rglob("*.py")]
    return {name for path in files for name in names_in(path)}


def test_what_is_logged_is_what_is_enumerated():
    assert logged() | {LIBRARY} == EVENTS


def test_a_name_is_two_words_of_ours():
    for name in EVENTS:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name), name


def test_the_check_finds_a_name_that_is_not_enumerated(tmp_path):
    path = tmp_path / "x.py"
    path.write_text('self.log.info("made.up", a=1)\nlog.error("other.one")\n')
    assert set(names_in(path)) == {"made.up", "other.one"}


def documented():
    """The names in docs/logs.md and, of each, the fields in its row."""
    rows = re.findall(r"(?m)^\| `([a-z]+\.[a-z_]+)` \| (\w+) \|([^|]*)\| ([^|]+) \|$", page())
    assert len({row[0] for row in rows}) == len(rows), "a name stands twice"
    return {name: (level, set(re.findall(r"`(\w+)`", fields))) for name, level, fields, _ in rows}


def page():
    return (ROOT / "docs" / "logs.md").read_text("utf-8")


def test_the_docs_have_every_name_and_no_other():
    assert set(documented()) == EVENTS


def is_named(call):
    """Whether a call logs under a name that is written out in it."""
    is_logged = call.func.attr in METHODS and is_log(call.func.value)
    return is_logged and isinstance(call.args[0], ast.Constant)


def fields_in_code():
    """Fields written out where each name is logged; ``**`` hides fields, and then is None."""
    found = {}
    for path in (ROOT / "daemon").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if is_call(node) and isinstance(node.func, ast.Attribute) and is_named(node):
                keys = {keyword.arg for keyword in node.keywords}
                found.setdefault(node.args[0].value, set()).update(keys)
    return found


def test_the_docs_have_the_fields_of_every_name():
    rows = documented()
    for name, keys in fields_in_code().items():
        written = rows[name][1]
        assert keys - {None} <= written, name
        if None not in keys:
            assert written <= keys, name


def test_the_docs_have_the_levels_of_every_name():
    rows = documented()
    for path in (ROOT / "daemon").rglob("*.py"):
        for node, first in uses(ast.parse(path.read_text("utf-8"))):
            if isinstance(first, ast.Constant):
                assert rows[first.value][0] == node.attr, first.value
