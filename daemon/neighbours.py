"""Which facts read like a new one: vectors in the store, an index of them in memory.

The index lasts as long as the daemon, which alone decides on facts. It is made from the store
when first asked for and never saved.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from daemon.config import Config
from daemon.deaths import WorkerError
from daemon.messages import Embed, Embedded
from daemon.store import Store, facts, vectors
from daemon.store.facts import HELD, Fact
from daemon.store.vectors import Vector
from ingest import sentence

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ingest import Index

#: asks the worker to embed texts
EmbedTexts = Callable[[Embed], Embedded]
TEXTS = 500  #: of one request and one transaction
PARTS = 8  #: that a group is taken into when one of its texts ends the worker
UNKNOWN = b""  #: the vector of a text that can't be embedded
_BYTES = 4  #: of a float32


class Neighbours:
    """Facts by what they read like.

    Indexed is every fact but those not looked at yet and duplicates, so none has to be found
    again that a rollback or a person brings back; which of them are held, the store says.
    """

    def __init__(self, store: Store, config: Config, embed: EmbedTexts) -> None:
        self._store, self._config, self._embed = store, config, embed
        self._index: Index | None = None
        self._indexed_to = 0  #: the newest fact there was when the store was last looked through
        self._new: dict[int, bytes] = {}

    def meet(self, new: Sequence[Fact]) -> None:
        """Make ready for the oldest received facts, in the order of their ids; none: do nothing.

        Embeds them, and whatever else came in up to them and was decided on elsewhere.
        """
        if not new:
            return
        self._new = self._vectors(new)
        width = max(len(data) for data in self._new.values()) // _BYTES
        if width == 0:
            return  # nothing is known of any of them
        if self._index is None:
            from ingest import Index

            self._index = Index(width)
        self._look_through(self._index, new[-1].id)

    def give_up(self, fact: Fact) -> None:
        """Remember that a fact's text ends the worker that embeds it: it is never tried again."""
        model = self._config.embedding.name
        vectors.save(self._store, model, [Vector(fact.id, self._key(fact), UNKNOWN)])

    def of(self, fact: Fact) -> list[Fact]:
        """Return the held facts that read like one that was met, the nearest first."""
        if self._index is None or self._new[fact.id] == UNKNOWN:
            return []
        section = self._config.embedding
        vector = _array([self._new[fact.id]], self._index.width)
        look = 4 * section.candidates
        while True:
            ids = self._index.search(vector, look, section.floor_cosine)[0][0]
            near = [int(i) for i in ids if i >= 0]
            held = facts.among(self._store, near, HELD, section.candidates)
            if len(held) == section.candidates or len(near) < look:
                return held
            look *= 4  # superseded facts stand before the held ones

    def keep(self, fact: Fact) -> None:
        """Take in a fact that was decided on and is no duplicate."""
        if self._index is None or self._new[fact.id] == UNKNOWN:
            return
        self._index.add([fact.id], _array([self._new[fact.id]], self._index.width))

    def _look_through(self, index: Index, last: int) -> None:
        """Index what the store has up to a fact; at first that is everything."""
        model, first = self._config.embedding.name, self._indexed_to + 1
        lacking = vectors.missing(self._store, model, first, last)
        for start in range(0, len(lacking), TEXTS):
            self._embed_apart([facts.get(self._store, i) for i in lacking[start : start + TEXTS]])
        for page in vectors.compared(self._store, model, first, last):
            if known := [v for v in page if v.data != UNKNOWN]:
                index.add([v.fact_id for v in known], _array([v.data for v in known], index.width))
        self._indexed_to = max(self._indexed_to, last)  # triage may come back to an older fact

    def _embed_apart(self, wanted: Sequence[Fact]) -> None:
        """Embed facts that were decided on long ago; one that ends the worker stops no other."""
        try:
            self._vectors(wanted)
        except WorkerError as error:
            if not error.is_at_work or error.is_stop:
                raise
            if len(wanted) == 1:
                self.give_up(wanted[0])
                return
            size = -(-len(wanted) // PARTS)
            for start in range(0, len(wanted), size):
                self._embed_apart(wanted[start : start + size])

    def _vectors(self, wanted: Sequence[Fact]) -> dict[int, bytes]:
        """Return the facts' vectors: stored ones, those of the same text, and new ones."""
        model = self._config.embedding.name
        found = vectors.of_facts(self._store, model, [f.id for f in wanted])
        lacking = [f for f in wanted if f.id not in found]
        for start in range(0, len(lacking), TEXTS):
            made = self._made(model, lacking[start : start + TEXTS])
            vectors.save(self._store, model, made)
            found |= {v.fact_id: v.data for v in made}
        return found

    def _made(self, model: str, wanted: Sequence[Fact]) -> list[Vector]:
        texts = [_text(fact) for fact in wanted]
        keys = [self._key(fact) for fact in wanted]
        known = vectors.of_texts(self._store, keys)
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        if new:
            reply = self._embed(Embed(texts=tuple(new.values())))
            known |= dict(zip(new, _rows(reply), strict=True))
        return [Vector(f.id, key, known[key]) for f, key in zip(wanted, keys, strict=True)]

    def _key(self, fact: Fact) -> str:
        return vectors.text_key(self._config.embedding.name, _text(fact))


def _text(fact: Fact) -> str:
    return sentence(fact.subject, fact.prompts[0], fact.object)


def _rows(reply: Embedded) -> list[bytes]:
    data, size = base64.b64decode(reply.vectors), _BYTES * reply.width
    return [data[start : start + size] for start in range(0, len(data), size)]


def _array(rows: Sequence[bytes], width: int) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(b"".join(rows), "<f4").reshape(-1, width)
