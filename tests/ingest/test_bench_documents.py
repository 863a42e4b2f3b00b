"""The bench that counts what becomes of a folder of documents."""

import json
import subprocess
import sys
from pathlib import Path

from feed_documents import atom, rss

ROOT = Path(__file__).resolve().parents[2]


def run(folder):
    command = [sys.executable, "-m", "bench.documents", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)


def test_documents_are_counted_as_parsed_or_refused(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a.xml").write_bytes(rss("<guid>a</guid>"))
    (tmp_path / "below" / "b.xml").write_bytes(atom("<id>b</id>"))
    (tmp_path / "c.html").write_bytes(b"<!doctype html><html><body>Log in</body></html>")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"parsed": 2, "refused": 1, "failed": 0}


def test_a_document_that_needs_too_much_memory_has_failed(tmp_path):
    (tmp_path / "large.xml").write_bytes(rss(f"<title>{'x' * (150 << 20)}</title>"))
    done = run(tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 1
    assert b"large.xml" in done.stderr
