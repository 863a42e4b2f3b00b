"""The promotion gate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gate import FactResult, Measure, Thresholds, blamed_facts, failing_facts, judge
from policies.gate import Outcome as GateOutcome

GOOD = {
    "reliability": (98, 100),
    "generalisation": (95, 100),
    "locality_near": (99, 100),
    "locality_far": (998, 1000),
    "retention": (49, 50),
    "stale": (3, 1000),
}


def verdict(thresholds=None, **changed):
    counts = {name: pair for name, pair in (GOOD | changed).items() if pair is not None}
    measures = {name: Measure(name, *pair) for name, pair in counts.items()}
    return judge(measures, thresholds or Thresholds())


def test_measures_just_at_their_thresholds_pass():
    assert verdict().outcome is GateOutcome.PASSED
    assert verdict().reasons == ()


@pytest.mark.parametrize(
    ("name", "counts", "reason"),
    [
        ("reliability", (97, 100), "reliability .970 (97 of 100) is under .98"),
        ("generalisation", (149, 160), "generalisation .931 (149 of 160) is under .95"),
        ("generalisation", (9499, 10000), "generalisation .949 (9499 of 10000) is under .95"),
        ("locality_near", (98, 100), "locality_near .980 (98 of 100) is under .99"),
        ("locality_far", (997, 1000), "locality_far .997 (997 of 1000) is under .998"),
        ("retention", (0, 1), "retention .000 (0 of 1) is under .98"),
        ("stale", (4, 1000), "stale .004 (4 of 1000) is over .003"),
        ("stale", (301, 100000), "stale .004 (301 of 100000) is over .003"),
    ],
)
def test_a_measure_on_the_wrong_side_fails_the_release_and_says_so(name, counts, reason):
    result = verdict(**{name: counts})
    assert result.outcome is GateOutcome.FAILED
    assert result.reasons == (reason,)


def test_every_failure_is_named():
    assert len(verdict(reliability=(0, 9), locality_far=(0, 9)).reasons) == 2


@pytest.mark.parametrize("name", ["reliability", "locality_near", "locality_far"])
@pytest.mark.parametrize("counts", [None, (0, 0)], ids=["absent", "no probes"])
def test_a_required_measure_without_probes_decides_nothing(name, counts):
    result = verdict(**{name: counts})
    assert result.outcome is GateOutcome.INCONCLUSIVE
    assert result.reasons == (f"{name} has no probes",)


@pytest.mark.parametrize("name", ["generalisation", "retention", "stale"])
@pytest.mark.parametrize("counts", [None, (0, 0)], ids=["absent", "no probes"])
def test_a_measure_with_nothing_to_ask_is_not_required(name, counts):
    assert verdict(**{name: counts}).outcome is GateOutcome.PASSED


def test_a_failure_outweighs_a_gap():
    assert verdict(reliability=(0, 10), locality_far=None).outcome is GateOutcome.FAILED


def test_too_few_probes_decide_nothing():
    result = verdict(Thresholds(min_probes=101))
    assert result.outcome is GateOutcome.INCONCLUSIVE
    assert "reliability has 100 probes, under 101" in result.reasons


def test_a_caller_may_require_more():
    measures = {name: Measure(name, *pair) for name, pair in GOOD.items() if name != "retention"}
    required = frozenset({"retention"})
    assert judge(measures, Thresholds(), required).outcome is GateOutcome.INCONCLUSIVE


def test_a_measure_without_a_threshold_is_an_error():
    with pytest.raises(ValueError, match="charm"):
        judge({"charm": Measure("charm", 1, 1)}, Thresholds())


@pytest.mark.parametrize(("right", "asked"), [(2, 1), (-1, 1), (0, -1)])
def test_counts_that_cannot_be_are_refused(right, asked):
    with pytest.raises(ValueError):
        Measure("reliability", right, asked)


@pytest.mark.parametrize("more", [{"reliability": 1.1}, {"stale": -0.1}, {"min_probes": 0}])
def test_thresholds_that_cannot_be_are_refused(more):
    with pytest.raises(ValueError):
        Thresholds(**more)


@given(st.integers(1, 3000), st.data())
def test_one_more_right_answer_never_turns_a_pass_into_a_failure(asked, data):
    right = data.draw(st.integers(0, asked - 1))
    if verdict(reliability=(right, asked)).outcome is GateOutcome.PASSED:
        assert verdict(reliability=(right + 1, asked)).outcome is GateOutcome.PASSED


def test_facts_that_do_not_hold_are_set_aside_with_the_reason():
    results = [
        FactResult(1, True, 2, 2),
        FactResult(2, False, 2, 2),
        FactResult(3, True, 0, 2),
        FactResult(4, True, 1, 2),
        FactResult(5, True, 0, 0),
        FactResult(6, True, 1, 3),
        FactResult(7, True, 2, 2, in_context=1, in_context_asked=3),
        FactResult(8, True, 2, 2, in_context=2, in_context_asked=4),
    ]
    aside = failing_facts(results)
    assert [one.fact_id for one in aside] == [2, 3, 6, 7]
    assert "unreliable" in aside[0].reason
    assert "0 of 2 held-out" in aside[1].reason
    assert "1 of 3 prompts in context" in aside[3].reason


def test_facts_whose_own_misses_failed_a_candidate_are_blamed():
    judged = verdict(generalisation=(3, 4))
    good, bad = FactResult(1, True, 2, 2), FactResult(2, True, 1, 2)
    (blamed,) = blamed_facts([good, bad], judged)
    assert blamed.fact_id == 2
    assert "1 of 2 held-out phrasings" in blamed.reason
    assert "generalisation .750 (3 of 4) is under .95" in blamed.reason


def test_a_miss_in_context_is_blamed_only_when_a_context_fell_short():
    missed = FactResult(1, True, 2, 2, in_context=1, in_context_asked=2)
    assert [b.fact_id for b in blamed_facts([missed], verdict(after_text=(1, 2)))] == [1]
    assert blamed_facts([missed], verdict(generalisation=(1, 2))) == ()


def test_nobody_is_blamed_for_what_no_single_fact_answers_for():
    bad = FactResult(2, True, 1, 2)
    both = verdict(generalisation=(3, 4), locality_near=(1, 2))
    assert blamed_facts([bad], both) == ()
    assert blamed_facts([bad], verdict()) == ()


def test_new_facts_that_answered_for_other_slots_are_blamed_for_them():
    good, bad = FactResult(1, True, 2, 2), FactResult(2, True, 2, 2, misfires=3)
    (blamed,) = blamed_facts([good, bad], verdict(locality_near=(96, 100)))
    assert blamed.fact_id == 2
    assert "answered 3 prompts of other slots" in blamed.reason
    assert "locality_near .960" in blamed.reason
