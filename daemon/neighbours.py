"""Which facts read like a new one: vectors in the store, an index of them in memory.

The index lasts as long as the daemon, which alone decides on facts. It is made from the store
when first asked for and never saved.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from daemon.config import Config
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
        width = len(self._new[new[0].id]) // _BYTES
        if self._index is None:
            from ingest import Index

            self._index = Index(width)
        self._look_through(self._index, new[-1].id)

    def of(self, fact: Fact) -> list[Fact]:
        """Return the held facts that read like one that was met, the nearest first."""
        assert self._index is not None
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
        assert self._index is not None
        self._index.add([fact.id], _array([self._new[fact.id]], self._index.width))

    def _look_through(self, index: Index, last: int) -> None:
        """Index what the store has up to a fact; at first that is everything."""
        model, first = self._config.embedding.name, self._indexed_to + 1
        lacking = vectors.missing(self._store, model, first, last)
        for start in range(0, len(lacking), TEXTS):
            self._vectors([facts.get(self._store, i) for i in lacking[start : start + TEXTS]])
        for page in vectors.compared(self._store, model, first, last):
            index.add([v.fact_id for v in page], _array([v.data for v in page], index.width))
        self._indexed_to = last

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
        texts = [sentence(f.subject, f.prompts[0], f.object) for f in wanted]
        keys = [vectors.text_key(model, text) for text in texts]
        known = vectors.of_texts(self._store, keys)
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        if new:
            reply = self._embed(Embed(texts=tuple(new.values())))
            known |= dict(zip(new, _rows(reply), strict=True))
        return [Vector(f.id, key, known[key]) for f, key in zip(wanted, keys, strict=True)]


def _rows(reply: Embedded) -> list[bytes]:
    data, size = base64.b64decode(reply.vectors), _BYTES * reply.width
    return [data[start : start + size] for start in range(0, len(data), size)]


def _array(rows: Sequence[bytes], width: int) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(b"".join(rows), "<f4").reshape(-1, width)
