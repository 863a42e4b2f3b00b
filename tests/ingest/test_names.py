"""Names of one subject: resolved to one, refused where a table leaves it open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.names import Names
from ingest.text import fact_key, name_key, slot_key

TABLE = {
    "Myanmar": ["Burma"],
    "United Kingdom": ["UK", "U.K.", "the UK"],
    "United States": ["US", "U.S.", "USA"],
}
NAMES = Names(TABLE)


@pytest.mark.parametrize("name", ["UK", "the uk", "U.K.", "United Kingdom", "The united kingdom"])
def test_every_name_of_a_subject_has_the_key_of_its_entry(name):
    assert NAMES.key(name) == "united kingdom"
    assert NAMES.canonical(name) == "United Kingdom"
    assert NAMES.slot_key(name, "capital") == slot_key("United Kingdom", "capital")


def test_a_name_spelled_in_look_alike_letters_is_resolved_too():
    assert NAMES.key("\u0412urm\u0430") == "myanmar"


@given(st.text())
def test_a_name_without_an_entry_means_itself(name):
    if name_key(name) not in {name_key(n) for names in TABLE.values() for n in names}:
        assert NAMES.key(name) == name_key(name)
        assert NAMES.slot_key(name, "capital") == slot_key(name, "capital")
        assert NAMES.others(name) == () or NAMES.canonical(name) in TABLE


def test_part_of_a_name_is_not_the_name():
    assert NAMES.key("British Burma") == "british burma"
    assert NAMES.key("US Virgin Islands") == "us virgin islands"


def test_the_other_names_leave_out_the_one_that_is_given():
    assert NAMES.others("Burma") == ("Myanmar",)
    assert NAMES.others("Myanmar") == ("Burma",)
    assert NAMES.others("uk") == ("United Kingdom", "U.K.")
    assert NAMES.others("Chad") == ()


def test_an_object_is_compared_in_its_canonical_name():
    said = NAMES.fact_key("Ireland", "top_export_partner", "the UK")
    assert said == fact_key("Ireland", "top_export_partner", "United Kingdom")
    assert said != NAMES.fact_key("Ireland", "top_export_partner", "US")


def test_a_renaming_is_news_and_not_the_same_again():
    """A subject's own name as the object is compared as written."""
    assert NAMES.fact_key("Burma", "name", "Burma") != NAMES.fact_key("Burma", "name", "Myanmar")
    assert NAMES.fact_key("Burma", "name", "MYANMAR") == NAMES.fact_key(
        "Myanmar", "name", "Myanmar"
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"Congo": ["Kongo"], "Zaire": ["Kongo"]}, ("'Kongo'", "'Congo'", "'Zaire'", "both")),
        ({"Myanmar": ["Burma"], "Burma": ["Birma"]}, ("'Burma'", "'Myanmar'", "entry of its own")),
        ({"Gambia": ["X"], "The Gambia": ["Y"]}, ("'Gambia'", "'The Gambia'", "one name")),
        ({"Chad": [" "]}, ("' '", "'Chad'", "is no name")),
        ({"": ["Chad"]}, ("''", "is no name")),
        ({"...": ["Chad"]}, ("'...'", "is no name")),
        ({"A": ["X"], "B": ["\u0425"]}, ("'\u0425'", "'A'", "'B'", "both")),
    ],
)
def test_a_table_that_leaves_open_which_subject_is_meant_is_refused(table, told):
    with pytest.raises(ValueError) as refused:
        Names(table)
    assert all(part in str(refused.value) for part in told), refused.value


def test_all_problems_of_a_table_are_told_at_once():
    with pytest.raises(ValueError, match=r"'Kongo'.*; .*'Burma'"):
        Names({"Congo": ["Kongo"], "Zaire": ["Kongo"], "Myanmar": ["Burma"], "Burma": []})


def test_a_name_listed_twice_in_one_entry_is_no_problem():
    assert Names({"United Kingdom": ["UK", "uk", "United  Kingdom"]}).others("UK") == (
        "United Kingdom",
    )
