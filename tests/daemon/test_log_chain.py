"""Nothing secret, nothing that steers a terminal and nothing endless gets into a log."""

import json
import logging
import os
import stat
import unicodedata
import warnings

import pytest
import structlog
from test_cli_escape import HOSTILE

from daemon import log, log_files
from daemon.config import Log
from daemon.log_chain import MAX_FIELD_BYTES, bounded
from daemon.secrets import without_secrets

CANARY = "c4n4ry-5ecret-7788"


@pytest.fixture
def opened(tmp_path, capsys):
    """Set a log up in a folder; closed after the test, with every context unbound."""

    def setup(**settings):
        return log.setup(tmp_path, Log(**settings))

    yield setup
    log.close()
    structlog.contextvars.clear_contextvars()


def lines(folder):
    text = (folder / log.FILE).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def dangerous(text):
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in kinds and c != "\n"}


def every_text(value):
    if isinstance(value, dict):
        return [t for pair in value.items() for one in pair for t in every_text(one)]
    if isinstance(value, list):
        return [t for one in value for t in every_text(one)]
    return [value] if isinstance(value, str) else []


def test_a_line_is_time_level_name_then_fields_by_name(opened, tmp_path):
    opened().info("source.polled", source="world", facts=3, entries=4)
    (line,) = (tmp_path / log.FILE).read_text("utf-8").splitlines()
    found = json.loads(line)
    assert list(found) == ["at", "level", "event", "entries", "facts", "source"]
    assert found["level"] == "info"
    assert found["at"].endswith("Z")


def test_the_file_and_standard_error_have_the_same_lines(opened, tmp_path, capsys):
    opened().warning("source.failed", error="slow")
    assert capsys.readouterr().err == (tmp_path / log.FILE).read_text("utf-8")


def test_the_log_is_for_its_owner_alone(opened, tmp_path):
    opened().info("daemon.ready")
    assert stat.S_IMODE((tmp_path / log.FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{CANARY}@example.org/feed?x=1",
        f"GET https://example.org/feed?key={CANARY} failed",
        f"https://example.org/#{CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"Authorization: {CANARY}",
        f"Authorization: Token {CANARY}",
        f"WISED_READER_KEY={CANARY}",
        f"{{'authorization': 'Basic {CANARY}'}}",
        f"token={CANARY}; more",
        f"api_key = {CANARY}",
        f'"password": "{CANARY}"',
        f"HF_TOKEN={CANARY}",
        f"hf_{CANARY}",
        f"ghp_{CANARY}",
        f"sk-{CANARY}",
        f"eyJ{CANARY}.{CANARY}.x",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
        f"postgres://me:{CANARY}@host/base",
    ],
)
def test_secrets_are_hidden_wherever_they_stand(opened, tmp_path, capsys, text):
    logger = opened()
    logger.info("source.failed", error=text, deep={"list": [text], text: 1}, extra=(text,))
    logging.getLogger("library").warning("it said %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("work.failed")
    assert CANARY not in (tmp_path / log.FILE).read_text("utf-8")
    assert CANARY not in capsys.readouterr().err
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize("key", ["token", "api_key", "hf_token", "Authorization", "cookie", "pwd"])
def test_a_field_named_like_a_secret_is_hidden_at_any_depth(opened, tmp_path, key):
    opened().info("daemon.ready", **{key: CANARY}, deep={"deeper": {key: CANARY}})
    (found,) = lines(tmp_path)
    assert found[key] == "***"
    assert found["deep"] == {"deeper": {key: "***"}}


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/feed",
        "release 12 was refused: reliability 0.97",
        "tokenizers and passwords are words",
        "the key of the token table",
        "[wise] prefix_tokens: Input should be greater than 0",
        "row.duplicate_key: a key occurs twice",
        "head of government: Ana Brnabić",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text):
    assert without_secrets(text) == text


def test_counts_of_tokens_are_no_secrets(opened, tmp_path):
    opened().info("work.progress", tokens=12)
    assert lines(tmp_path)[0]["tokens"] == 12


def test_no_name_and_no_value_can_move_a_terminal(opened, tmp_path, capsys):
    logger = opened()
    logger.info(HOSTILE, **{HOSTILE: HOSTILE}, deep={HOSTILE: [HOSTILE, {"x": HOSTILE}]})
    structlog.contextvars.bind_contextvars(source=HOSTILE)
    logging.getLogger(HOSTILE).error("%s", HOSTILE)
    for text in ((tmp_path / log.FILE).read_text("utf-8"), capsys.readouterr().err):
        assert len(text.splitlines()) == 2
        assert dangerous(text) == set()
    texts = [text for found in lines(tmp_path) for text in every_text(found)]
    assert [text for text in texts if dangerous(text)] == []
    assert any("\\x1b" in text and "⟦U+202E⟧" in text for text in texts)


def test_a_terminal_gets_lines_for_a_person(opened, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    opened().info("source.polled", source="w\x1b[2J", facts=3)
    shown = capsys.readouterr().err
    at = lines(tmp_path)[0]["at"]
    assert shown == f"{at} info source.polled facts=3 source=w\\x1b[2J\n"


def test_a_traceback_can_not_forge_a_line(opened, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    logger = opened()
    try:
        raise ValueError("x\n2026-01-01 info release.promoted release=9")
    except ValueError:
        logger.exception("work.failed")
    first, *rest = capsys.readouterr().err.splitlines()
    assert "work.failed" in first
    assert rest and all(line.startswith("    ") for line in rest)


def test_a_field_has_at_most_8_kib(opened, tmp_path):
    opened().info("daemon.ready", long="ä" * 20000, many=["x" * 500] * 500, deep={"a": {"b": "c"}})
    (found,) = lines(tmp_path)
    assert len(found["long"].encode()) <= MAX_FIELD_BYTES
    assert found["long"].endswith("bytes]")
    assert len(found["many"].encode()) <= MAX_FIELD_BYTES
    assert found["deep"] == {"a": {"b": "c"}}


def test_controls_that_grow_when_shown_keep_the_bound(opened, tmp_path):
    opened().info("daemon.ready", long="\x00" * MAX_FIELD_BYTES)
    assert len(lines(tmp_path)[0]["long"]) <= MAX_FIELD_BYTES


def test_a_nest_without_end_and_fields_without_number_are_bounded(opened, tmp_path):
    nest = []
    for _ in range(200):
        nest = [nest]
    opened().info("daemon.ready", nest=nest, **{f"f{n:05}": "x" for n in range(5000)})
    assert (tmp_path / log.FILE).stat().st_size < 64 * MAX_FIELD_BYTES
    assert lines(tmp_path)[0]["event"] == "daemon.ready"


def test_what_has_no_text_is_named(opened, tmp_path):
    class Odd:
        def __str__(self):
            raise ZeroDivisionError

        __repr__ = object.__repr__

    opened().info("daemon.ready", odd=Odd())
    assert lines(tmp_path)[0]["odd"] == "<Odd: ZeroDivisionError>"


def test_a_cut_says_how_much_there_was():
    assert bounded("abc", 3) == "abc"
    assert bounded("x" * 100, 50) == "x" * 35 + "... [100 bytes]"


def test_what_is_bound_goes_with_every_line_of_libraries_too(opened, tmp_path):
    logger = opened()
    with structlog.contextvars.bound_contextvars(source="world"):
        logger.info("source.polled")
        logging.getLogger("somewhere").warning("slow: %s", 3)
    logger.info("daemon.stopped")
    ours, theirs, after = lines(tmp_path)
    assert ours["source"] == "world"
    assert theirs["source"] == "world"
    assert (theirs["event"], theirs["logger"], theirs["text"]) == (
        "library.said",
        "somewhere",
        "slow: 3",
    )
    assert "source" not in after


def test_python_warnings_are_logged(opened, tmp_path):
    opened()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("this is old", stacklevel=1)
    (found,) = lines(tmp_path)
    assert found["logger"] == "py.warnings"
    assert "this is old" in found["text"]


def test_the_level_is_as_configured(opened, tmp_path):
    logger = opened(level="warning")
    logger.info("daemon.ready")
    logger.debug("probe.missed")
    logger.error("work.failed")
    assert [found["event"] for found in lines(tmp_path)] == ["work.failed"]


def test_libraries_that_put_urls_in_their_lines_are_quiet_at_info(opened, tmp_path):
    opened()
    logging.getLogger("httpx2").info("HTTP Request: GET https://example.org")
    logging.getLogger("apscheduler.executors.default").info("Running job")
    logging.getLogger("httpx2").warning("odd")
    assert [found["text"] for found in lines(tmp_path)] == ["odd"]


def test_the_log_is_rotated_by_size_and_old_ones_go(opened, tmp_path):
    logger = opened(file_max_mb=0.001, keep_files=2)
    for number in range(100):
        logger.info("work.progress", done=number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["wised.jsonl", "wised.jsonl.1", "wised.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())


def test_the_newest_lines_are_found_across_a_rotation(opened, tmp_path):
    logger = opened(file_max_mb=0.001, keep_files=5)
    for number in range(30):
        logger.info("work.progress", done=number)
    newest = log_files.tail(tmp_path / log.FILE, 25)
    assert [json.loads(line)["done"] for line in newest] == list(range(5, 30))
    assert log_files.tail(tmp_path / "none", 5) == []


def test_a_full_disk_does_not_stop_the_work(opened, tmp_path, capsys):
    logger = opened()
    os.symlink("/dev/full", tmp_path / log.FILE)
    logger.info("daemon.ready")
    assert "daemon.ready" in capsys.readouterr().err


def test_setting_up_again_writes_each_line_once(opened, tmp_path):
    opened()
    opened().info("daemon.ready")
    assert len(lines(tmp_path)) == 1


def test_a_worker_log_over_its_bound_is_set_aside(tmp_path):
    path = tmp_path / "worker.log"
    log_files.trim(path, 1)
    path.write_bytes(b"x" * 1000)
    log_files.trim(path, 0.001)
    assert path.stat().st_size == 1000
    path.write_bytes(b"y" * 1001)
    log_files.trim(path, 0.001)
    assert not path.exists()
    assert (tmp_path / "worker.log.1").read_bytes() == b"y" * 1001
