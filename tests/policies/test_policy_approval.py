"""Tiers and approval."""

import pytest

from policies.approval import State, decide, passes_for, risks
from policies.trust import Tier

AUTO = frozenset({Tier.TRUSTED})


def test_trust_is_ordered_by_rank_and_not_by_spelling():
    ordered = sorted(Tier, key=lambda tier: tier.rank)
    assert ordered == [Tier.UNTRUSTED, Tier.NORMAL, Tier.TRUSTED]
    assert Tier.TRUSTED.at_least(Tier.NORMAL) and Tier.NORMAL.at_least(Tier.NORMAL)
    assert not Tier.UNTRUSTED.at_least(Tier.NORMAL)
    assert Tier("trusted") is Tier.TRUSTED


def decided(tier, subject="Chad", object="N\u2019Djamena", auto_approve=AUTO):
    return decide(tier, auto_approve=auto_approve, subject=subject, object=object)


def test_a_trusted_fact_is_approved_by_a_rule_that_is_named():
    decision = decided(Tier.TRUSTED)
    assert decision.state is State.APPROVED
    assert "auto_approve" in decision.reason and "trusted" in decision.reason


@pytest.mark.parametrize("tier", [Tier.NORMAL, Tier.UNTRUSTED])
def test_other_tiers_wait_for_a_person(tier):
    assert decided(tier).state is State.PENDING


def test_without_a_rule_even_a_trusted_fact_waits():
    assert decided(Tier.TRUSTED, auto_approve=frozenset()).state is State.PENDING


SUSPECTS = [
    ("Chad", "  CHAD ", "is the subject"),
    ("Chad", "see https://evil.example/x", "URL"),
    ("Chad", "www.evil.example", "URL"),
    ("Chad", "evil.example/x", "URL"),
    ("Chad", "javascript:alert(1)", "URL"),
    ("Chad", "x" * 121, "121 characters"),
    ("\u0420\u0430ris", "x", "subject mixes cyrillic and latin"),
    ("Chad", "\u039dairobi", "object mixes greek and latin letters in one word"),
    ("Chad", "Port \ua4d1aris", "object mixes latin and lisu"),
]


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize(("subject", "object", "why"), SUSPECTS)
def test_a_suspect_fact_is_quarantined_from_every_tier(tier, subject, object, why):
    decision = decide(tier, auto_approve=frozenset(Tier), subject=subject, object=object)
    assert decision.state is State.QUARANTINED
    assert why in decision.reason


@pytest.mark.parametrize(
    ("subject", "object"),
    [
        ("Chad", ".td"),
        ("Chad", "x" * 120),
        ("What is the value of \u03c0", "3.14"),
        ("\u041f\u0435\u0440\u0443", "\u041b\u0438\u043c\u0430"),
        ("\u65e5\u672c", "\u6771\u4eac Tokyo"),
        ("\u041f\u0435\u0440\u0443 (Peru)", "\u041b\u0438\u043c\u0430 / Lima"),
        ("Chad", "Dr. A.B. Smith, Jr"),
    ],
)
def test_an_ordinary_fact_raises_no_suspicion(subject, object):
    assert risks(subject, object) == ()


def test_all_reasons_are_given_at_once():
    assert len(risks("Chad", "www." + "x" * 200)) == 2


def test_a_subject_that_reads_like_a_held_one_is_told_by_its_script():
    fake = "\u0421\u043e\u0441\u043e\u0455"
    assert passes_for(fake, "Cocos", is_believed=False) == (
        "the subject reads like 'Cocos', but is written in cyrillic letters"
    )
    assert passes_for("Cocos", fake, is_believed=True) is not None, "whichever came first"
    assert passes_for("Cocos", fake, is_believed=False) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("Cocos", "COCOS"), ("Cote d'Ivoire", "C\u00f4te d\u2019Ivoire"), ("\uff23\uff48ad", "Chad")],
)
def test_another_spelling_in_the_same_script_is_no_suspicion(one, other):
    assert passes_for(one, other, is_believed=True) is None
