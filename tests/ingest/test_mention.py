"""Names in texts: the name itself, and not a longer one that holds its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.mention import mentions

CAPITALS = st.from_regex(r"[A-Z][b-z]{4,8}", fullmatch=True).filter(lambda w: w[-1] != "s")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Who leads Chad?", "Chad"),
        ("Chad's capital is", "Chad"),
        ("In Chad, President Deby is", "Chad"),
        ("Who is President of Chad today?", "Chad"),
        ("Who is Prime Minister of the Bahamas?", "The Bahamas"),
        ("Who leads Bahamas?", "The Bahamas"),
        ("The president that St. Lucia has", "Saint Lucia"),
        ("Where in Saint Lucia is it?", "St Lucia"),
        ("Who leads C\u00f4te d\u2019Ivoire now?", "Cote d'Ivoire"),
        ("Trinidad & Tobago - capital", "Trinidad and Tobago"),
        ("who leads the government of chad?", "Chad"),
        ("Is it Guinea\u2013Bissau", "Guinea-Bissau"),
        ("Guinea or Guinea-Bissau: which?", "Guinea"),
        ("Who succeeded J. Smith?", "J. Smith"),
        ("Ask. Chad is", "Chad"),
    ],
)
def test_a_name_is_found_in_any_spelling(text, name):
    assert mentions(text, name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Who leads South Sudan?", "Sudan"),
        ("Who leads Guinea-Bissau?", "Guinea"),
        ("Papua New Guinea's capital", "Guinea"),
        ("American Samoa is governed by", "Samoa"),
        ("Who leads the Democratic Republic of the Congo?", "Congo"),
        ("Trinidad and Tobago - capital", "Trinidad"),
        ("which language do they speak in south sudan", "Sudan"),
        ("Which city governs Chadwick?", "Chad"),
        ("Who leads Indochina?", "China"),
        ("Who leads Mali?", ""),
        ("", "Chad"),
    ],
)
def test_a_part_of_a_longer_name_is_not_it(text, name):
    assert not mentions(text, name)


def test_a_name_in_capitals_is_no_word_of_the_language():
    assert mentions("Who represents the US in Chad?", "US")
    assert mentions("Who leads the U.K. today?", "U.K.")
    assert not mentions("who is one of us?", "US")


@given(CAPITALS, CAPITALS)
def test_a_capital_beside_a_name_makes_it_another(name, more):
    assert mentions(f"Who leads {name} now?", name)
    assert not mentions(f"Who leads {more} {name} now?", name) or more == name
    assert mentions(f"Beside {more}, {name} is small", name)


@given(st.text(), st.text())
def test_any_texts_will_do(text, name):
    assert mentions(text, name) in (True, False)
