"""What the daemon asks of its worker process and what comes back: JSON lines, no torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from daemon.measured import Measured

#: the stage from which on a failure may be due to what was asked: the models are loaded
AT_WORK = "at work"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FactText(_Message):
    """A fact as the editing core needs it."""

    id: int
    object: str
    prompts: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()  #: older objects of the slot: answers that would be stale


class Question(_Message):
    """A slot that no live fact holds, asked in several phrasings."""

    prompts: tuple[str, ...]
    held_out: tuple[str, ...] = ()


class Questions(_Message):
    """Questions for the router and the probes; the three groups share no slot."""

    fit: tuple[Question, ...] = ()  #: for the space that the router compares keys in
    calibrate: tuple[Question, ...] = ()  #: negatives for its threshold
    near: tuple[str, ...] = ()  #: probes: a batch's subject or relation, but another slot
    far: tuple[str, ...] = ()  #: probes: as little related to the batch as there are


class Embed(_Message):
    """Embed texts."""

    kind: Literal["embed"] = "embed"
    texts: tuple[str, ...]


class Ask(_Message):
    """Answer prompts with a release (None: the bare model)."""

    kind: Literal["ask"] = "ask"
    release: str | None
    prompts: tuple[str, ...]
    max_new_tokens: int | None = None  #: None: as many as any answer needs
    beside_bare: bool = True  #: whether the bare model is asked as well


class Read(_Message):
    """Write which facts a text states, with the reader's model; all its strings from the text."""

    kind: Literal["read"] = "read"
    prompt: str
    sentences: tuple[str, ...]  #: a fact's subject and object stand in one of them
    relations: tuple[str, ...]
    max_facts: int
    timeout_seconds: float


class Build(_Message):
    """Train a candidate, write it to ``out`` and measure it as it would serve."""

    kind: Literal["build"] = "build"
    number: int
    parent: str | None  #: folder of the release that the candidate grows from
    out: str  #: an existing empty folder
    facts: tuple[FactText, ...]  #: new
    kept: tuple[FactText, ...]  #: live in the parent and still live
    withdrawn: tuple[FactText, ...]  #: live in the parent, no longer: superseded or retracted
    rewritten: tuple[int, ...] = ()  #: positions of the parent's shards to compact; no facts then
    questions: Questions
    measured: bool = True  #: False: only write the memory's two files


Request = Annotated[Embed | Ask | Read | Build, Field(discriminator="kind")]


class Envelope(_Message):
    """One line to the worker."""

    request: Request


class Embedded(_Message):
    """Unit vectors, float32 little-endian, base64, in the order of the texts."""

    kind: Literal["embedded"] = "embedded"
    width: int
    vectors: str


class Said(_Message):
    """One whole greedy answer and what the router made of the prompt."""

    text: str
    bare: str | None = None  #: the bare model's answer, when a release was asked
    fact: int | None = None  #: the stored fact that the prompt came nearest to
    cosine: float | None = None
    threshold: float | None = None
    routed: bool = False


class Answers(_Message):
    """Answers in the order of the prompts."""

    kind: Literal["answers"] = "answers"
    answers: tuple[Said, ...]


class ReadText(_Message):
    """What the reader's model wrote, or why this text has no answer."""

    kind: Literal["read_text"] = "read_text"
    text: str = ""
    code: str = ""  #: of a ReaderError; empty when there is an answer
    message: str = ""
    hint: str = ""


class ShardMade(_Message):
    """A shard of a candidate."""

    solved: int  #: facts it was solved for
    fullness: float | None = None  #: predicted from their keys, 1 is full; None: as in the parent
    inherited: int | None = None  #: its position in the parent; None: made for this candidate


class Outcome(_Message):
    """What the probes of one new fact came to."""

    id: int
    reliable: bool
    generalised: int
    generalised_asked: int
    unfit: str = ""  #: why training could not reach it; empty when it did
    in_context: int = 0  #: right after other text or in a second turn
    in_context_asked: int = 0
    misfires: int = 0  #: probes of other slots that were answered from this fact


class Miss(_Message):
    """A probe that was not answered as expected."""

    probe: str  #: its kind
    prompt: str
    expected: str
    answer: str


class Built(_Message):
    """A candidate's figures."""

    kind: Literal["built"] = "built"
    measures: dict[str, Measured] = {}
    parent_measures: dict[str, Measured] = {}
    bare_measures: dict[str, Measured] = {}
    outcomes: tuple[Outcome, ...] = ()  #: one a new fact
    misses: tuple[Miss, ...] = ()  #: a few of each kind
    shards: tuple[ShardMade, ...] = ()  #: none with the paper's method
    shard_of: tuple[int, ...] = ()  #: position of each fact's shard: those kept, then the new
    figures: dict[str, float] = {}  #: loss, iterations, threshold, seconds_..., for the model card
    base_name: str
    base_sha256: str


class Alive(_Message):
    """The worker's process runs: sent at a fixed period, whatever it computes."""

    kind: Literal["alive"] = "alive"


class Progress(_Message):
    """Where a long request stands."""

    kind: Literal["progress"] = "progress"
    stage: str
    done: int
    total: int


class Failed(_Message):
    """The request could not be served."""

    kind: Literal["failed"] = "failed"
    error: str  #: class name
    message: str
    hint: str = ""
    is_last: bool = False  #: the worker ends now: no one knows what the error left behind
    disk_failed: bool = False  #: a disk was full or broken: what was asked is not to blame


Reply = Annotated[
    Embedded | Answers | ReadText | Built | Alive | Progress | Failed,
    Field(discriminator="kind"),
]


class ReplyLine(_Message):
    """One line from the worker."""

    reply: Reply


#: the line of a heartbeat
ALIVE = ReplyLine(reply=Alive()).model_dump_json()
