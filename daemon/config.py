"""The configuration: one `config.toml`, unknown keys refused, all problems reported at once."""

from __future__ import annotations

import ipaddress
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from daemon.errors import UsageError
from ingest import Names, patterns

ROOT = Path(__file__).resolve().parent
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


def default_file() -> Path:
    """Return the configuration that comes with wised: beside the packages, or inside the wheel."""
    beside = ROOT.parent / "config.toml"
    return beside if beside.exists() else ROOT / "default_config.toml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(_Section):
    """The language model that is kept current."""

    name: str
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    layer: int = -1
    module: str | None = None


class Embedding(_Section):
    """The model whose vectors propose duplicates."""

    name: str
    candidates: Positive = 5
    floor_cosine: Share = 0.55


class Ingest(_Section):
    """How sources are polled."""

    poll_interval_minutes: Annotated[float, Field(ge=5)] = 30
    max_rows_per_poll: Positive = 2000
    timeout_seconds: Annotated[float, Field(gt=0)] = 60
    ca_file: str | None = None
    max_undecided_facts: Positive = 100_000
    max_undecided_facts_per_source: Positive = 20_000
    max_new_facts_per_source_per_day: Positive = 20_000
    keep_entry_text_days: Annotated[float, Field(ge=0, le=36500)] = 7


class Extraction(_Section):
    """How free text is read by a language model."""

    reader: Literal["none", "local", "endpoint"] = "none"
    model: str | None = None
    endpoint: str = "http://127.0.0.1:8000/v1"
    api_key_env: str = "WISED_READER_KEY"
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    max_text_chars: Annotated[int, Field(ge=100, le=65536)] = 6000
    max_facts_per_entry: Annotated[int, Field(ge=1, le=100)] = 10
    max_entries_per_cycle: Positive = 20
    max_attempts: Positive = 3
    retry_minutes: Annotated[float, Field(ge=0)] = 10
    auto_approve: bool = False

    @field_validator("endpoint")
    @classmethod
    def _is_a_plain_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_plain = False
        # NOTE: the value is not repeated: it may hold a secret that was put into the wrong place.
        if not is_plain or parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must be an http or https URL without user, query or fragment")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", value):
            raise ValueError(
                "must be the name of an environment variable; the key itself goes there"
            )
        return value

    @model_validator(mode="after")
    def _has_a_model(self) -> Extraction:
        if self.reader == "endpoint" and self.model is None:
            raise ValueError('reader = "endpoint" needs model, as the server names it')
        return self


class Policies(_Section):
    """What needs no person."""

    auto_approve: tuple[Literal["trusted", "normal", "untrusted"], ...] = ("trusted",)


class Gate(_Section):
    """What a candidate must reach to be promoted."""

    min_reliability: Share = 0.98
    min_generalisation: Share = 0.95
    min_after_text: Share = 0.97
    min_second_turn: Share = 0.97
    min_locality_near: Share = 0.99
    min_locality_far: Share = 0.998
    min_retention: Share = 0.98
    max_stale: Share = 0.003
    retention_sample: Positive = 100
    far_probes: Positive = 480
    max_rebuilds: Annotated[int, Field(ge=0)] = 2


class Paper(_Section):
    """How the paper's method writes facts: the fields of `wise.paper.Paper`."""

    rho: Annotated[float, Field(gt=0, le=1)] = 0.2
    k: Positive = 2
    rate: Annotated[float, Field(gt=0)] = 1.0
    alpha: Annotated[float, Field(ge=0)] = 5.0
    beta: Annotated[float, Field(ge=0)] = 20.0
    gamma: Annotated[float, Field(ge=0)] = 10.0
    prefixes: Annotated[int, Field(ge=0)] = 10
    prefix_tokens: Positive = 10
    max_iterations: Positive = 40
    stop_below_nats: Annotated[float, Field(gt=0)] | None = None
    mode: Literal["merge", "retrieve"] = "merge"
    merging: Literal["dare", "dare_ties", "linear", "sign", "slerp", "ties"] = "ties"
    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    factor: Annotated[float, Field(ge=0)] = 1.0


class Wise(_Section):
    """How facts are written."""

    method: Literal["keyed", "paper"] = "keyed"
    batch_max_facts: Positive = 100
    max_small_shards: Positive = 2
    max_dead_share: Share = 0.5
    shard_room: Annotated[float, Field(gt=0)] = 10.0
    rho: Annotated[float, Field(gt=0, le=1)] = 0.8
    ridge: Annotated[float, Field(gt=0)] = 0.5
    invariance: Annotated[float, Field(ge=0)] = 100.0
    aim_nats: Annotated[float, Field(ge=0)] = 14.0
    margin_nats: Annotated[float, Field(ge=0)] = 2.0
    max_iterations: Positive = 40
    activation_budget_mb: Positive = 4096
    mixed_precision: bool = True
    ties_density: Annotated[float, Field(gt=0, le=1)] = 0.8
    background_file: str | None = None
    router_lean: Share = 0.5
    router_floor: Share = 0.7
    false_fire: Annotated[float, Field(gt=0, lt=1)] = 0.001
    seed: int = 0
    paper: Paper = Paper()


class Daemon(_Section):
    """How the service runs."""

    cycle_interval_seconds: Annotated[float, Field(gt=0)] = 60
    embed_budget_minutes: Annotated[float, Field(gt=0)] = 30
    ask_budget_minutes: Annotated[float, Field(gt=0)] = 30
    build_budget_minutes: Annotated[float, Field(gt=0)] = 60
    worker_silence_seconds: Annotated[float, Field(ge=2)] = 120
    worker_memory_mb: Positive | None = None
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = 30
    max_attempts: Positive = 3
    retry_minutes: Annotated[float, Field(ge=0)] = 10
    keep_releases: Positive = 10


class Probation(_Section):
    """How a release is watched after its promotion."""

    minutes: Annotated[float, Field(ge=0)] = 0
    every_minutes: Annotated[float, Field(gt=0)] = 5
    sample: Annotated[int, Field(ge=0)] = 50
    min_same: Share = 0.98
    command: tuple[str, ...] = ()
    command_seconds: Annotated[float, Field(gt=0)] = 60


class Log(_Section):
    """What the status log says and how large it gets."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file_max_mb: Annotated[float, Field(gt=0)] = 20
    keep_files: Annotated[int, Field(ge=1, le=100)] = 5


class Metrics(_Section):
    """Where the figures and the health of the service can be read; nowhere by default."""

    listen: str = ""
    allow_remote: bool = False
    textfile: str = ""

    @model_validator(mode="after")
    def _listens_where_it_may(self) -> Metrics:
        if self.listen:
            host, _ = self.address
            if not (self.allow_remote or _is_loopback(host)):
                raise ValueError(
                    f"listen = {self.listen!r} can be reached from other machines, and anyone"
                    " there could read it; use 127.0.0.1, or set allow_remote = true"
                )
        return self

    @field_validator("textfile")
    @classmethod
    def _is_read_by_a_collector(cls, value: str) -> str:
        if value and not (value.endswith(".prom") and Path(value).is_absolute()):
            raise ValueError(f"{value!r} must be an absolute path that ends in .prom")
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Return the host and the port of ``listen``; raises ValueError for anything else."""
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):(\d{1,5})", self.listen)
        if found is None or int(found[3]) > 65535:
            raise ValueError(f"listen = {self.listen!r} is no address such as 127.0.0.1:9464")
        return found[1] or found[2], int(found[3])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ValueError(f"{host!r} is no IP address") from None


class Relation(_Section):
    """One relation: how it is recognised in text and how the model is asked for it."""

    single_valued: Literal[True] = True  #: a newer object replaces the older one
    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    held_out: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @field_validator("prompts", "held_out")
    @classmethod
    def _asks_for_a_subject(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in value:
            if prompt.count("{subject}") != 1 or "{" in prompt.replace("{subject}", ""):
                raise ValueError(f"{prompt!r} must hold {{subject}} once and no other field")
        return value

    @field_validator("patterns")
    @classmethod
    def _can_be_run(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if why := patterns.problem(pattern):
                raise ValueError(f"{pattern!r} {why}")
        return value

    @model_validator(mode="after")
    def _probes_with_other_words(self) -> Relation:
        if shared := set(self.prompts) & set(self.held_out):
            raise ValueError(f"{sorted(shared)[0]!r} is both trained and held out")
        return self


class Config(_Section):
    """All of `config.toml`."""

    model: Model
    embedding: Embedding
    ingest: Ingest = Ingest()
    extraction: Extraction = Extraction()
    policies: Policies = Policies()
    gate: Gate = Gate()
    wise: Wise = Wise()
    daemon: Daemon = Daemon()
    probation: Probation = Probation()
    subjects: dict[str, tuple[str, ...]] = {}  #: other names of a subject, by the one it goes under
    log: Log = Log()
    metrics: Metrics = Metrics()
    relations: dict[str, Relation] = {}

    @field_validator("subjects")
    @classmethod
    def _names_mean_one_subject(cls, value: dict[str, tuple[str, ...]]) -> dict[str, Any]:
        Names(value)
        return value

    @field_validator("relations")
    @classmethod
    def _names_can_be_stored(cls, value: dict[str, Relation]) -> dict[str, Relation]:
        for name in value:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or name == "asked":
                raise ValueError(f"{name!r}: use lower case letters, digits, _ (not 'asked')")
        return value


def load(path: Path) -> Config:
    """Read and check a configuration, TOML or JSON; raises UsageError that lists every problem."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error}") from error
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="make a state folder first: wised init DIR"
        ) from error
    try:
        read = json.loads if path.suffix == ".json" else tomllib.loads
        return Config.model_validate(read(text))
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = path.suffix.removeprefix(".").upper()
        raise UsageError(f"{path}: not {kind}: {error}") from error
    except ValidationError as error:
        problems = [_problem(path, text, e) for e in error.errors()]
        raise UsageError(
            "\n".join(problems), hint="wised config show prints the defaults"
        ) from None


def _problem(path: Path, text: str, error: Any) -> str:
    keys = [str(k) for k in error["loc"]]
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}:{_line(text, keys)}: {'.'.join(keys)}: {message}"


def _line(text: str, keys: list[str]) -> int:
    """Return the line of the innermost of ``keys`` that stands in the text, counted from 1."""
    found, section = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[+([^\]]+)\]", line):
            section = heading[1].strip()
            if ".".join(keys).startswith(section):
                found = number
            continue
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key and section and ".".join(keys).startswith(f"{section}.{key[1]}"):
            return number
    return found
