"""What the package promises to those who import it."""

import re
import subprocess
import sys
from pathlib import Path

import ingest
from ingest import errors

ROOT = Path(__file__).resolve().parents[2]


def loaded_after(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_public_name_exists_and_has_one_home():
    assert sorted(ingest._HOMES) == sorted(ingest.__all__)
    for name in ingest.__all__:
        assert getattr(ingest, name) is not None


def test_importing_the_packages_loads_no_client_no_parser_and_no_arrays():
    modules = loaded_after("import ingest, policies; ingest.Extractor; ingest.judge; ingest.redact")
    assert not modules & {"httpx2", "httpcore2", "feedparser", "numpy", "torch", "transformers"}


def test_ingest_and_policies_do_not_know_each_other_nor_the_daemon():
    modules = loaded_after("import ingest.poll, ingest.dedupe")
    assert not {name.partition(".")[0] for name in modules} & {"policies", "daemon", "wise"}
    rules = sorted(path.stem for path in (ROOT / "policies").glob("[a-z]*.py"))
    modules = loaded_after(f"from policies import {', '.join(rules)}")
    assert "policies.gate" in modules
    assert not {name.partition(".")[0] for name in modules} & {"ingest", "daemon", "wise"}


def test_every_error_prints_its_code_and_its_message():
    for kind in (errors.FetchError, errors.FeedError, errors.LogError, errors.RowError):
        error = kind("a.code", "what is wrong", "what to do")
        assert isinstance(error, errors.IngestError)
        assert str(error) == "a.code: what is wrong"
        assert error.hint == "what to do"


def test_every_code_of_a_fetch_that_failed_is_in_the_docs():
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "ingest").glob("[a-z]*.py"))
    codes = set(re.findall(r'"(fetch\.[a-z0-9_]+)"', sources))
    assert len(codes) > 12
    told = (ROOT / "docs" / "sources.md").read_text("utf-8")
    assert {code for code in codes if f"`{code}`" not in told} == set()
