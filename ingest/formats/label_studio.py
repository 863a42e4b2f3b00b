"""Tasks of Label Studio with a text area: what people wrote is right, the prediction wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.errors import RowError
from ingest.formats.format import Format, Row, has
from ingest.formats.parts import (
    ANSWER_KEYS,
    agreed,
    answer_if_any,
    correction,
    listing,
    mapping,
    only,
    question,
    required,
    text,
)


def _read(row: Row) -> Row:
    data = mapping("data", required(row, "data"))
    made = [mapping("annotations", one) for one in listing("annotations", row.get("annotations"))]
    final = _final(made)
    written = [_written(one) for one in final]
    # Each annotation answers the same question; it is chosen by what any of them answers.
    name = only("result", {key: "x" for areas in written for key in areas}, ANSWER_KEYS)
    areas = [one[name] for one in written if name in one]
    return correction(
        _asked(data, areas[-1].get("to_name")),
        agreed(name, (_text(name, area) for area in areas)),
        _predicted(row, name),
        ts=final[-1].get("updated_at") or final[-1].get("created_at"),
    )


def _final(annotations: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the annotations that count: not skipped, and those marked as ground truth if any."""
    if not annotations:
        raise RowError("row.no_answer", "nobody has annotated the task")
    kept = [one for one in annotations if not one.get("was_cancelled")]
    if not kept:
        raise RowError("row.cancelled", "the task was skipped: each annotation was cancelled")
    return [one for one in kept if one.get("ground_truth")] or kept


def _written(annotation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return an annotation's text areas by their names in the labeling configuration."""
    areas: dict[str, Mapping[str, Any]] = {}
    for one in listing("result", annotation.get("result")):
        region = mapping("result", one)
        if region.get("type") == "textarea":
            areas[str(required(region, "from_name"))] = region
    if not areas:
        raise RowError("row.no_answer", "the annotation has no result of type textarea")
    return areas


def _text(name: str, area: Mapping[str, Any]) -> str:
    value = mapping("value", required(area, "value")).get("text")
    if isinstance(value, list):
        if len(value) > 1:
            raise RowError("row.ambiguous_field", f"{name} has {len(value)} texts, not one")
        value = value[0] if value else None
    return text(name, value)


def _asked(data: Mapping[str, Any], to_name: object) -> str:
    # By convention the labeling configuration names the object after its key in the data.
    if isinstance(to_name, str) and isinstance(data.get(to_name), str):
        return text(f"data.{to_name}", data[to_name])
    return question("data", data)


def _predicted(row: Row, name: str) -> str | None:
    """Return the last prediction's text; None where there is none, for it is only evidence."""
    try:
        last = mapping("predictions", listing("predictions", row.get("predictions"))[-1])
        return answer_if_any(_text(name, _written(last)[name]))
    except (RowError, LookupError):
        return None


FORMAT = Format(
    name="label-studio",
    title="Label Studio tasks (JSON)",
    keys="data, annotations",
    fits=has("data", "annotations"),
    read=_read,
)
