"""The models and texts of one worker, loaded when first needed."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

import wise
from daemon.config import Config, Model
from daemon.errors import UsageError
from daemon.messages import AT_WORK
from daemon.worker import faults
from wise.site import values

if TYPE_CHECKING:
    from daemon.worker.reader import LocalReader

#: reports where a request stands: (stage, done, total)
Report = Callable[[str, int, int], None]
MAX_ANSWER_TOKENS = 48
#: answers of the bare model that are kept; one release's probes are some 2,000
MAX_BARE_ANSWERS = 10_000
DEMO = "demo"
SPREAD = "spread"  #: the device of a model that accelerate lays out over all there are


@dataclass(frozen=True, slots=True)
class Background:
    """Running text in three parts that share no passage."""

    train: tuple[str, ...] = ()
    calibrate: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()


@dataclass
class Session:
    """What a worker keeps between requests."""

    config: Config
    report: Report
    _bare: dict[tuple[str, int], str] = field(default_factory=dict)

    @cached_property
    def model(self) -> Any:
        """The base model, frozen, on its device."""
        self.report("loading the model", 0, 1)
        return _loaded(self.config.model.name, self.config.model)

    def begin(self, texts: Iterable[str]) -> None:
        """Load the model, then say that from here on the request's texts are worked on.

        Until then a failure can't be due to them: the daemon blames no fact for it.
        """
        _ = self.model, self.tokenizer
        self.report(AT_WORK, 0, 1)
        faults.strike(texts)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        return _tokenizer(self.config.model.name)

    @cached_property
    def reader(self) -> LocalReader:
        """The reader of free text: the base model, bare, where no other model is named."""
        from daemon.worker.reader import LocalReader, checked_library

        checked_library()
        name = self.config.extraction.model
        if name is None or name == self.config.model.name:
            return LocalReader(self.model, self.tokenizer)
        self.report("loading the reader's model", 0, 1)
        try:
            return LocalReader(_loaded(name, self.config.model), _tokenizer(name))
        except (OSError, ValueError) as error:
            raise UsageError(f"[extraction] model = {name!r}: {error}") from error

    @cached_property
    def site(self) -> wise.Site:
        """The matrix that is edited."""
        return wise.locate(self.model, self.config.model.layer, self.config.model.module)

    @cached_property
    def base_sha256(self) -> str:
        """Hash of the edited matrix."""
        return wise.weight_hash(self.model, self.site)

    @cached_property
    def stored_dtype(self) -> torch.dtype:
        """The type that shards are stored in: the edited matrix's own."""
        return values(self.model, self.site).dtype

    @cached_property
    def background(self) -> Background:
        """The configured running text, split by a hash of each passage."""
        name = self.config.wise.background_file
        if name is None:
            return Background()
        path = _demo() / "data" / "prose.txt" if name == DEMO else Path(name)
        try:
            lines = path.read_text("utf-8").splitlines()
        except OSError as error:
            raise UsageError(f"[wise] background_file {path}: {error.strerror}") from error
        parts: tuple[list[str], list[str], list[str]] = ([], [], [])
        for line in lines:
            if len(line) >= 40:
                parts[hashlib.sha256(line.encode()).digest()[0] % 3].append(line)
        return Background(*(tuple(part) for part in parts))

    @property
    def max_tokens(self) -> int:
        """Longest sequence that the model takes."""
        return int(getattr(self.model.config, "max_position_embeddings", 2048))

    @contextmanager
    def attached(self, release: wise.Release | None) -> Iterator[wise.Attached | None]:
        """Attach a release for the block; None leaves the model bare."""
        if release is None:
            yield None
            return
        memory = wise.attach(self.model, self.site, release.memory)
        try:
            yield memory
        finally:
            memory.detach()

    def load(self, folder: str) -> wise.Release:
        """Read a release that was made for this model; raises BadArtifact."""
        release = wise.Release.load(Path(folder))
        if release.site != self.site or release.base_sha256 != self.base_sha256:
            raise wise.BadArtifact(
                f"{folder}: made for another base model ({release.base_name})",
                hint="set [model] to the model that the release names",
            )
        return release

    def key_inputs(self, prompts: list[str]) -> torch.Tensor:
        """Return what enters the edited matrix at each prompt's end, (n, d_in) float32.

        Nothing is kept between requests: a row's last bits depend on the rows computed beside it,
        and a release must come out the same from a fresh worker.
        """
        tokens = [self.tokenizer(prompt)["input_ids"] for prompt in dict.fromkeys(prompts)]
        rows = wise.last_inputs(self.model, self.site, tokens)
        place = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        return rows.reshape(-1, self.site.d_in)[[place[prompt] for prompt in prompts]]

    def bare(self, prompts: list[str], max_new_tokens: int = MAX_ANSWER_TOKENS) -> list[str]:
        """Return the bare model's answers; those asked for last are kept, and not made again."""
        wanted, kept = list(dict.fromkeys(prompts)), self._bare
        new = [p for p in wanted if (p, max_new_tokens) not in kept]
        said = self.ask(new, None, "asking the bare model", max_new_tokens)
        made = {p: answer.text for p, answer in zip(new, said, strict=True)}
        answers = {p: made[p] if p in made else kept.pop((p, max_new_tokens)) for p in wanted}
        kept |= {(p, max_new_tokens): text for p, text in answers.items()}
        for key in list(kept)[: max(0, len(kept) - MAX_BARE_ANSWERS)]:
            del kept[key]
        return [answers[prompt] for prompt in prompts]

    def ask(
        self,
        prompts: list[str],
        memory: wise.Attached | None,
        stage: str,
        max_new_tokens: int = MAX_ANSWER_TOKENS,
    ) -> list[wise.Answer]:
        """Answer prompts with what is attached, reporting progress as ``stage``."""
        return wise.answer(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens,
            memory,
            progress=lambda done, total: self.report(stage, done, total),
        )

    @cached_property
    def embedder(self) -> Any:
        """The sentence-transformers model."""
        from daemon.worker.embedder import load

        self.report("loading the embedding model", 0, 1)
        return load(self.config.embedding.name)


def _demo() -> Path:
    import demo

    return Path(str(demo.__file__)).parent


def _loaded(name: str, section: Model) -> Any:
    """Return a frozen model, laid out as the base model is."""
    model = AutoModelForCausalLM.from_pretrained(
        _model_place(name),
        dtype=getattr(torch, section.dtype),
        trust_remote_code=False,
        use_safetensors=True,
        device_map=_device_map(section.device),
    )
    model.requires_grad_(False).eval()
    if section.device != SPREAD:
        torch.nn.Module.to(model, _device(section.device))
    return model


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        _model_place(name), trust_remote_code=False
    )
    return tokenizer


def _model_place(name: str) -> str:
    return str(_demo() / "model") if name == DEMO else name


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _device_map(name: str) -> str | None:
    """Return how a model is laid out. Raises UsageError where that needs what isn't installed."""
    if name != SPREAD:
        return None
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError(
            "[model] device = 'spread' needs accelerate",
            hint="install it: pip install 'wised[accelerate]'",
        )
    return "auto"
