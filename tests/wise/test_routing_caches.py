"""What happens to a KV cache between two passes happens to its routing, too."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import pytest
import torch
from routed import FIRST, NEXT, ROWS, Bench, begun, empty, goes_on

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_some_rows_carry_a_span_over_and_others_none(last: Bench) -> None:
    """Else the tests below could not fail."""
    with last.attached() as attached, attached.watched() as seen:
        last.model(torch.cat([FIRST, NEXT[:, :1]], 1))
    carried = seen[0].active[:, -1] & (seen[0].cosine[:, -1] < last.memory.threshold)
    assert carried.tolist() == [True, False, True]


@pytest.mark.parametrize("change", ROWS)
def test_routing_follows_the_rows_of_a_cache(last: Bench, change: str) -> None:
    make, rows = ROWS[change]
    with last.attached() as attached:
        cache = begun(last)
        make(cache)
        goes_on(last, attached, cache, FIRST[rows], NEXT.repeat(2, 1)[: len(rows)])


def test_rows_change_in_the_middle_of_decoding(last: Bench) -> None:
    with last.attached() as attached:
        cache, past = begun(last), FIRST
        for token in NEXT.unbind(1):
            cache.reorder_cache(torch.tensor([1, 1, 0]))
            goes_on(last, attached, cache, past[[1, 1, 0]], token[:, None])
            past = torch.cat([past[[1, 1, 0]], token[:, None]], 1)


def test_a_copied_cache_goes_its_own_way(last: Bench) -> None:
    """A prompt's cache is deep-copied, or stored, to answer several questions after it."""
    with last.attached() as attached:
        cache = begun(last)
        for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
            other.reorder_cache(torch.tensor([1, 2, 0]))
            goes_on(last, attached, other, FIRST[[1, 2, 0]], NEXT)
        goes_on(last, attached, copy.copy(cache), FIRST, NEXT)


@pytest.mark.parametrize("kept", range(1, 6))
def test_a_cropped_cache_goes_on_from_where_it_was_cropped(last: Bench, kept: int) -> None:
    with last.attached() as attached:
        cache = begun(last)
        goes_on(last, attached, cache, FIRST, NEXT[:, :2])
        cache.crop(kept - FIRST.shape[1] - 2)
        assert cache.get_seq_length() == kept
        goes_on(last, attached, cache, FIRST[:, :kept], NEXT)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_that_is_reset_starts_over(last: Bench, kind: str) -> None:
    cache = empty(last, kind)
    with last.attached() as attached:
        begun(last, cache).reset()
        goes_on(last, attached, cache, torch.empty(3, 0, dtype=torch.long), FIRST)


def test_generations_take_turns_with_caches_that_the_model_makes(last: Bench) -> None:
    """The first pass gets no cache: there is none to remember anything by before it is over."""
    with last.attached() as attached:
        one = last.model(FIRST, use_cache=True).past_key_values
        two = last.model(FIRST.flip(0), use_cache=True, return_dict=False)[1]
        for place in range(NEXT.shape[1]):
            token = NEXT[:, place : place + 1]
            goes_on(last, attached, one, torch.cat([FIRST, NEXT[:, :place]], 1), token)
            goes_on(last, attached, two, torch.cat([FIRST.flip(0), NEXT[:, :place]], 1), token)


def test_a_cache_in_a_tuple_is_found(last: Bench) -> None:
    with last.attached() as attached:
        _, cache = last.model.model(FIRST, use_cache=True, return_dict=False)
        goes_on(last, attached, cache, FIRST, NEXT)


def test_rows_that_were_taken_out_of_a_cache_by_hand_start_without_a_span(last: Bench) -> None:
    with last.attached() as attached:
        cache = begun(last)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[::2], layer.values[::2]
        with attached.watched() as seen:
            last.model(NEXT[::2, :1], past_key_values=cache)
    assert not seen[0].active.any()


def test_a_mask_that_ends_before_the_new_tokens_says_nothing_of_them(last: Bench) -> None:
    every = replace(last, memory=replace(last.memory, threshold=-1.0))
    with every.attached() as attached:
        cache = begun(last)
        with attached.watched() as seen:
            last.model(NEXT[:, :1], attention_mask=torch.zeros(3, 1), past_key_values=cache)
    assert seen[0].active.all()


def test_no_cache_outlives_its_last_user(last: Bench) -> None:
    gc.collect()
    gc.disable()
    try:
        with last.attached():
            cache = begun(last)
            last.model(NEXT, past_key_values=cache)
            gone = weakref.ref(cache)
            del cache
            assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_filled_without_the_memory_is_in_no_span(last: Bench, kind: str) -> None:
    cache = begun(last, empty(last, kind))
    with last.attached() as attached, attached.watched() as seen:
        last.model(NEXT[:, :1], past_key_values=cache)
    assert not seen[0].active.any()


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_the_next_token_of_such_a_cache_is_not_its_rows_first(last: Bench, kind: str) -> None:
    every = replace(last, memory=replace(last.memory, threshold=-1.0))
    cache = begun(last, empty(last, kind))
    with every.attached() as attached, attached.watched() as seen:
        last.model(NEXT[:, :1], past_key_values=cache)
    assert seen[0].active.all()


def test_rows_that_were_all_padding_without_the_memory_have_yet_to_begin(last: Bench) -> None:
    every = replace(last, memory=replace(last.memory, threshold=-1.0))
    cache = empty(last, "dynamic")
    mask = torch.ones(3, 8)
    mask[0, :6] = 0
    last.model(FIRST, attention_mask=mask[:, :6], past_key_values=cache)
    with every.attached() as attached, attached.watched() as seen:
        last.model(NEXT[:, :1], attention_mask=mask[:, :7], past_key_values=cache)
        last.model(NEXT[:, 1:2], attention_mask=mask, past_key_values=cache)
    assert [d.active[:, 0].tolist() for d in seen] == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_span_ends_while_the_memory_is_off(last: Bench, kind: str) -> None:
    expected = [last.expected(row)[1][7] for row in torch.cat([FIRST, NEXT], 1).tolist()]
    assert expected == [True, False, True]
    with last.attached() as attached:
        cache = begun(last, empty(last, kind))
        with attached.off():
            last.model(NEXT[:, :1], past_key_values=cache)
        with attached.watched() as seen:
            last.model(NEXT[:, 1:2], past_key_values=cache)
    assert not seen[0].active.any()


def test_another_memory_does_not_take_over_a_caches_routing(last: Bench) -> None:
    other = replace(last, memory=replace(last.memory, threshold=2.0))
    with last.attached():
        cache = begun(last)
    with other.attached() as attached, attached.watched() as seen:
        last.model(NEXT[:, :1], past_key_values=cache)
    assert not seen[0].active.any()
