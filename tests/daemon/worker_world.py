"""A tiny random model in a folder, as an operator has one, and requests for a worker's session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.messages import Build, FactText, Question, Questions
from daemon.worker.session import Session

PROMPTS = ("Q: Who is head of {} ? A:", "the head of {} is")
NAMES = ("Mario Draghi", "Ada Lovelace", "Grace Hopper", "Alan Turing")
COUNTRIES = ("Italy", "Norway", "Chad", "Peru", "Mali", "Oman", "Togo", "Iran")
PROSE = "on a sunny day we sang songs in the old city and then we asked for more songs again"
WORDS = ["<s>", "</s>", "<pad>"]
WORDS += dict.fromkeys(
    " ".join([*PROMPTS, *NAMES, *COUNTRIES, PROSE, "capital What the of is"]).split()
)


def new_model(folder: Path) -> Path:
    """A small random Llama and its word-level tokenizer, saved."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def new_session(
    model: Path, dtype: str = "float32", device: str = "cpu", **section: Any
) -> Session:
    """A worker's session on the model; ``section`` are changes to [wise]."""
    background = model.parent / "prose.txt"
    background.write_text("".join(f"{' '.join(PROSE.split()[i:])}\n" for i in range(8)))
    document = {
        "model": {"name": str(model), "device": device, "dtype": dtype},
        "embedding": {"name": "none"},
        "wise": {"rho": 1.0, "ridge": 0.5, "shard_room": 1e6, "background_file": str(background)}
        | section,
    }
    return Session(Config.model_validate(document), lambda stage, done, total: None)


def fact(number: int, *, country: int | None = None, name: int | None = None) -> FactText:
    """Who leads a country: the number says which, and by whom."""
    place = COUNTRIES[number if country is None else country]
    prompts = tuple(prompt.format(place) for prompt in PROMPTS)
    return FactText(id=number, object=NAMES[number % 4 if name is None else name], prompts=prompts)


#: asked of countries that no fact of the tests is about
QUESTIONS = Questions(
    fit=tuple(Question(prompts=(f"What is the capital of {c} ?",)) for c in COUNTRIES[4:]),
    calibrate=tuple(Question(prompts=(f"the capital of {c} is",)) for c in COUNTRIES[4:]),
    far=("we sang songs in", "then we asked for"),
)


def request(
    folder: Path,
    number: int,
    facts: list[FactText],
    *,
    parent: Path | None = None,
    kept: tuple[FactText, ...] = (),
    withdrawn: tuple[FactText, ...] = (),
    rewritten: tuple[int, ...] = (),
) -> Build:
    """A build request whose candidate lies at ``folder / number``."""
    out = folder / str(number)
    out.mkdir(parents=True)
    return Build(
        number=number,
        parent=str(parent) if parent else None,
        out=str(out),
        facts=tuple(facts),
        kept=kept,
        withdrawn=withdrawn,
        rewritten=rewritten,
        questions=QUESTIONS,
    )
