"""The index of vectors against plain search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.index import Index


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clusters(rng, count, width, spread=0.5):
    """Vectors near each other in groups of about ten, as facts about one thing are."""
    centres = unit(rng.normal(size=(max(1, count // 10), width)))
    noise = unit(rng.normal(size=(count, width)))
    return unit(centres[rng.integers(0, len(centres), count)] + spread * noise)


def exact(vectors, query, k, floor):
    cosines = vectors @ query
    order = np.argsort(-cosines, kind="stable")[:k]
    return [int(i) for i in order if cosines[i] >= floor]


def filled(vectors, first=0):
    index = Index(vectors.shape[1])
    index.add(range(first, first + len(vectors)), vectors)
    return index


@settings(deadline=None)
@given(
    count=st.integers(1, 60),
    width=st.sampled_from([16, 63, 64, 65, 384]),
    k=st.integers(1, 20),
    floor=st.floats(-1, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_few_vectors_are_searched_exactly(count, width, k, floor, seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(count, width)))
    vectors = unit(vectors.astype(np.float16))  # what is kept, so that rounding decides no order
    queries = unit(rng.normal(size=(3, width)))
    index = filled(vectors, first=100)
    ids, cosines = index.search(queries, k, floor)
    assert ids.shape == cosines.shape == (3, k)
    for query, found, score in zip(queries, ids, cosines, strict=True):
        there = found >= 0
        assert (np.isneginf(score) == ~there).all()
        assert (score[there] >= floor).all() and (np.diff(score[there]) <= 0).all()
        truth = np.sort(vectors @ query)[::-1]
        assert score[there] == pytest.approx(truth[: there.sum()], abs=2e-3)
        assert there.sum() == pytest.approx(min(k, (truth >= floor).sum()), abs=1)
        assert score[there] == pytest.approx((vectors @ query)[found[there] - 100], abs=2e-3)


def test_a_graph_loses_none_of_the_vectors_that_it_began_with():
    """Threads that link the first vectors at the same time don't see each other's."""
    rng = np.random.default_rng(11)
    few, more = unit(rng.normal(size=(64, 16))), unit(rng.normal(size=(6000, 16)))
    ids, _ = filled(np.concatenate([few, more])).search(few, 1, 0.5)
    assert ids[:, 0].tolist() == list(range(64))


def test_many_vectors_are_searched_nearly_exactly():
    rng = np.random.default_rng(7)
    vectors = clusters(rng, 20_000, 384)
    queries = unit(vectors[::400] + 0.4 * unit(rng.normal(size=(50, 384))))
    ids, _ = filled(vectors).search(queries, 5, 0.5)
    right = [set(exact(vectors, query, 5, 0.5)) for query in queries]
    kept = [len(truth & set(found)) for truth, found in zip(right, ids.tolist(), strict=True)]
    assert sum(kept) >= 0.99 * sum(map(len, right))


def test_vectors_added_piece_by_piece_are_all_found():
    rng = np.random.default_rng(3)
    vectors, index = clusters(rng, 400, 64), Index(64)
    for start, stop in [(0, 1), (1, 1), (1, 9), (9, 400)]:
        index.add(range(start, stop), vectors[start:stop])
    assert len(index) == 400
    ids, cosines = index.search(vectors, 1, 0.1)
    assert ids[:, 0].tolist() == list(range(400))
    assert cosines == pytest.approx(1, abs=2e-3)


def test_a_crowd_of_equals_does_not_hide_what_is_behind_it():
    """A fact that came back many times; a graph loses some of a crowd of a hundred or more."""
    rng = np.random.default_rng(5)
    others = unit(rng.normal(size=(2000, 64)))
    one = unit(rng.normal(size=(1, 64)))
    behind = unit(one + 0.3 * unit(rng.normal(size=(1, 64))))
    index = filled(np.concatenate([others, np.tile(one, (60, 1)), behind]))
    ids, _ = index.search(one, 61, 0.7)
    assert sorted(ids[0].tolist()) == list(range(2000, 2061))


def test_nothing_is_found_in_nothing_nor_below_the_floor():
    one = np.array([[1, 0, 0, 0]], dtype=np.float32)
    ids, cosines = Index(4).search(one, 3, 0.0)
    assert ids.tolist() == [[-1] * 3] and np.isneginf(cosines).all()
    ids, _ = filled(one).search(-one, 3, 0.5)
    assert ids.tolist() == [[-1] * 3]
    assert filled(one).search(one[:0], 3, 0.5)[0].shape == (0, 3)


@pytest.mark.parametrize("shape", [(2, 4), (1, 5), (4,)])
def test_vectors_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="width 4"):
        Index(4).add([1], np.ones(shape, dtype=np.float32))
