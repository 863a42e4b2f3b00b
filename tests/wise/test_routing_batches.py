"""A row is routed as it is alone: batches, orders, padding, chunks and masks change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from routed import FIRST, NEXT, Bench, Layout, check, layouts, padded

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_a_fact_without_a_span_ends_the_one_before_it(last: Bench) -> None:
    spans = torch.tensor([0, 2, 0, 5])
    bench = replace(last, memory=replace(last.memory, span=spans))
    rows = torch.cat([FIRST, NEXT], 1).tolist()
    assert [bench.expected(r)[1] for r in rows] != [last.expected(r)[1] for r in rows]
    for cuts in ((11,), (5, 1, 1, 4), (1,) * 11):
        check(bench, Layout(tuple(padded(r, 1, 0, []) for r in rows), cuts, "dynamic", "columns"))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layout=layouts())
def test_a_row_is_routed_as_it_is_alone(last: Bench, layout: Layout) -> None:
    """Prompts, batches and their order, padding on both sides and within, chunks, caches, masks."""
    check(last, layout)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layout=layouts())
def test_so_it_is_below_the_last_layer(bench: Bench, layout: Layout) -> None:
    check(bench, layout)
