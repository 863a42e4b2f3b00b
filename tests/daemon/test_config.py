"""The configuration: the default is right, and every problem is reported where it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from daemon.config import default_file, load
from daemon.errors import UsageError


def test_the_default_configuration_is_valid_and_asks_for_every_demo_relation() -> None:
    from demo.world import base_facts

    config = load(default_file())
    assert {f.relation for f in base_facts()} == set(config.relations)
    for relation in config.relations.values():
        assert len(relation.prompts) + len(relation.held_out) >= 5
        assert len(relation.held_out) >= 2


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = default_file().read_text()
    lines = text.replace("rho = 0.8 ", "rho = 7 ").replace("seed = 0", "sede = 0").splitlines()
    path = tmp_path / "config.toml"
    path.write_text("\n".join(lines))
    rho = 1 + next(i for i, line in enumerate(lines) if line.startswith("rho"))
    seed = 1 + next(i for i, line in enumerate(lines) if line.startswith("sede"))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert f"config.toml:{rho}: wise.rho:" in str(caught.value)
    assert f"config.toml:{seed}: wise.sede:" in str(caught.value)


RELATION = '[model]\nname = "demo"\n[embedding]\nname = "m"\n[relations.{name}]\n{body}'


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("led_by", 'prompts = ["Who leads?"]', "{subject} once"),
        ("led_by", 'prompts = ["{subject} {x}"]', "no other field"),
        ("led_by", 'prompts = ["A {subject}"]\nheld_out = ["A {subject}"]', "both trained"),
        ("led_by", "prompts = [\"A {subject}\"]\npatterns = ['(?P<subject>.+)']", "'object'"),
        ("led_by", "prompts = [\"A {subject}\"]\npatterns = ['(']", "no regular expression"),
        ("asked", 'prompts = ["A {subject}"]', "asked"),
        ("led_by", "prompts = []", "at least 1"),
    ],
)
def test_a_relation_that_can_not_work_is_refused(
    tmp_path: Path, name: str, body: str, message: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(RELATION.format(name=name, body=body))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert message in str(caught.value)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The default configuration with one line changed."""
    text = default_file().read_text()
    assert text.count(old) == 1
    path = tmp_path / "config.toml"
    path.write_text(text.replace(old, new))
    return path


FLOOR = "ingest.poll_interval_minutes: Input should be greater than or equal to 5"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "keyed"', 'method = "published"', "wise.method: Input should be 'keyed' or"),
        ('mode = "merge"', 'mode = "mean"', "wise.paper.mode: Input should be 'merge' or"),
        ('merging = "ties"', 'merging = "mean"', "wise.paper.merging: Input should be 'dare'"),
        ("poll_interval_minutes = 30", "poll_interval_minutes = 4.9", FLOOR),
        ("alpha = 5.0", "alpha = -1", "wise.paper.alpha: Input should be greater than"),
        ("factor = 1.0", "faktor = 1.0", "wise.paper.faktor: Extra inputs are not permitted"),
        ("# stop_below_nats = 0.1", "stop_below_nats = 0", "wise.paper.stop_below_nats:"),
        ("aim_nats = 14.0", "aim_nats = inf", "wise.aim_nats: Input should be a finite number"),
    ],
)
def test_a_value_that_can_not_work_is_refused_where_it_stands(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = changed(tmp_path, old, new)
    line = 1 + path.read_text()[: path.read_text().index(new)].count("\n")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert f"config.toml:{line}: {message}" in str(caught.value)


def test_the_papers_method_is_configured_as_the_paper_has_it_unless_said_otherwise() -> None:
    from daemon.worker.paper import hyperparameters
    from daemon.worker.session import Session
    from wise.merging import MERGES
    from wise.paper import Paper

    config = load(default_file())
    assert config.wise.method == "keyed"
    assert hyperparameters(Session(config, lambda stage, done, total: None)) == Paper()
    for name in MERGES:
        type(config.wise.paper)(merging=name)  # type: ignore[arg-type]


def test_every_hyperparameter_of_the_paper_can_be_configured(tmp_path: Path) -> None:
    from dataclasses import asdict

    from daemon.worker.paper import hyperparameters
    from daemon.worker.session import Session
    from wise.paper import Paper

    other = {"rho": 0.5, "k": 3, "rate": 0.5, "alpha": 1.0, "beta": 2.0, "gamma": 3.0}
    other |= {"prefixes": 4, "prefix_tokens": 5, "max_iterations": 6, "stop_below_nats": 0.5}
    other |= {"mode": "retrieve", "merging": "slerp", "density": 0.25, "factor": 0.75}
    text = default_file().read_text()
    start, end = text.index("\n[wise.paper]") + 1, text.index("\n[daemon]")
    section = "".join(f"{name} = {value!r}\n" for name, value in other.items())
    path = tmp_path / "config.toml"
    path.write_text(f"{text[:start]}[wise.paper]\n{section}{text[end:]}")
    found = asdict(hyperparameters(Session(load(path), lambda stage, done, total: None)))
    assert list(found.values()) == list(asdict(Paper(**_as_paper(other))).values())
    assert all(found[name] != value for name, value in asdict(Paper()).items())


def _as_paper(section: dict[str, Any]) -> dict[str, Any]:
    """The section's values by the names of `wise.paper.Paper`."""
    named = {"max_iterations": "iterations", "stop_below_nats": "stop_below"}
    return {named.get(name, name): value for name, value in section.items()}


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "config.toml")
    assert "wised init" in caught.value.hint


def with_metrics(tmp_path, lines):
    path = tmp_path / "config.toml"
    text = default_file().read_text("utf-8")
    for key, value in lines.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    path.write_text(text, "utf-8")
    return load(path).metrics


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("127.8.9.1:1", ("127.8.9.1", 1)),
        ("localhost:9464", ("localhost", 9464)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_metrics_listen_on_loopback(tmp_path, listen, address):
    assert with_metrics(tmp_path, {"listen": f'"{listen}"'}).address == address


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "[::ffff:1.2.3.4]:1"]
)
def test_metrics_reach_other_machines_only_when_that_is_allowed(tmp_path, listen):
    with pytest.raises(UsageError, match="allow_remote"):
        with_metrics(tmp_path, {"listen": f'"{listen}"'})
    assert (
        with_metrics(tmp_path, {"listen": f'"{listen}"', "allow_remote": "true"}).listen == listen
    )


@pytest.mark.parametrize("listen", ["9464", ":9464", "127.0.0.1", "example.org:80", "127.1:99999"])
def test_what_is_no_address_is_refused(tmp_path, listen):
    with pytest.raises(UsageError, match="listen"):
        with_metrics(tmp_path, {"listen": f'"{listen}"', "allow_remote": "true"})


@pytest.mark.parametrize("path", ["wised.prom", "/var/lib/wised.txt"])
def test_the_text_file_must_be_one_that_a_collector_reads(tmp_path, path):
    with pytest.raises(UsageError, match=r"\.prom"):
        with_metrics(tmp_path, {"textfile": f'"{path}"'})
