"""Sentences, and where in one a name may begin and end."""

import pytest

from ingest.sentences import MAX_SENTENCE_CHARS, holds, sentences


def test_a_text_falls_into_lines_and_sentences():
    text = 'Cabinet changes\nChad has a new capital. It is "Abéché!" Nobody moved? 日本です。東京。'
    assert sentences(text, 1000) == (
        "Cabinet changes",
        "Chad has a new capital.",
        'It is "Abéché!"',
        "Nobody moved?",
        "日本です。",
        "東京。",
    )


@pytest.mark.parametrize(
    "whole",
    ["St. Lucia elected J. Smith.", "Growth was 3.5 percent.", "the u.s. embassy moved e.g. here"],
)
def test_a_dot_within_a_name_or_a_number_ends_no_sentence(whole):
    assert sentences(whole, 1000) == (whole,)


def test_an_overlong_sentence_is_left_out_and_not_cut():
    text = f"Rome is a city. X{'x' * MAX_SENTENCE_CHARS}. Oslo is one too."
    assert sentences(text, 10_000) == ("Rome is a city.", "Oslo is one too.")


def test_a_sentence_counts_once_and_all_stay_under_the_limit():
    assert sentences("One two.\nOne two.\nThree four.", 8) == ("One two.",)
    assert sentences("One two.\nThree four.", 19) == ("One two.", "Three four.")


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("Chad's capital is N'Djamena.", "Chad"),
        ("Chad's capital is N'Djamena.", "N'Djamena"),
        ("It ends in .it or (it).", ".it"),
        ('They call him "Baba".', '"Baba"'),
        ("Guinea-Bissau moved.", "Guinea-Bissau"),
        ("The rate is 3.5%.", "3.5%"),
        ("東京は日本の首都です", "日本"),
        ("대한민국의 수도는 서울이다", "서울"),
        ("Bamako", "Bamako"),
    ],
)
def test_a_sentence_holds_a_whole_name(sentence, name):
    assert holds(sentence, name)


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("Guinea-Bissau moved.", "Guinea"),
        ("Guinea-Bissau moved.", "Bissau"),
        ("The rate is 13.5%.", "3.5%"),
        ("The rate is 3.5%.", "3"),
        ("The rate is 3.5%.", "3.5"),
        ("It fell by -5 points.", "5 points"),
        ("It cost $5 then.", "5"),
        ("They write C# there.", "C"),
        ("On 2024-05-01 it moved.", "2024"),
        ("Nigeria voted.", "Niger"),
        ("Chad voted.", "chad"),
        ("Chad voted.", ""),
        ("हिन्दी", "हिन"),
    ],
)
def test_a_part_of_a_name_or_a_number_is_none(sentence, name):
    assert not holds(sentence, name)
