"""Full dates in one form."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.dates import MONTHS, plain_dates
from ingest.objects import same_object


@given(st.dates(min_value=date(1000, 1, 1)))
def test_the_forms_of_a_date_are_one(day):
    month = MONTHS[day.month - 1]
    forms = [
        f"{day.day} {month} {day.year}",
        f"{day.day:02d} {month.title()} {day.year}",
        f"{month.title()} {day.day}, {day.year}",
        f"{month.upper()} {day.day}th {day.year}",
        f"the {day.day}th of {month.title()}, {day.year}".removeprefix("the "),
        day.isoformat(),
    ]
    assert set(map(plain_dates, forms)) == {forms[0]}


@given(st.dates(min_value=date(1000, 1, 1)), st.dates(min_value=date(1000, 1, 1)))
def test_two_dates_are_never_one(a, b):
    assert same_object(a.isoformat(), f"{b:%B} {b.day}, {b.year}") == (a == b)


@given(st.text())
def test_once_plain_dates_stay(text):
    assert plain_dates(plain_dates(text)) == plain_dates(text)


@pytest.mark.parametrize(
    "text",
    ["5/7/1962", "1962-13-05", "1962-7-5", "July 1962", "32 July 1962", "11962-07-05", "May 5",
     "2020-01-01-7", "2020-01-01T10:00"],
)  # fmt: skip
def test_what_is_no_full_date_or_more_than_one_is_left_alone(text):
    assert plain_dates(text) == text
