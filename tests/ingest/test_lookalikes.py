"""Letters that look Latin: folded, but never so that two words of one script become one."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.lookalikes import LATIN_LOOK, SCRIPTS
from ingest.text import fold

#: letter -> what passes for it, small and capital
CONFUSABLES: dict[str, list[str]] = {}
for _code, _latin in LATIN_LOOK.items():
    _forms = {chr(_code), chr(_code).upper()}
    CONFUSABLES.setdefault(_latin, []).extend(sorted(f for f in _forms if len(f) == 1))

WORDS = st.text("abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-'", max_size=30)


@given(WORDS, st.data())
def test_a_text_in_confusable_letters_folds_like_the_text(text, data):
    swapped = "".join(
        data.draw(st.sampled_from([char, *CONFUSABLES.get(char.casefold(), [])])) for char in text
    )
    assert fold(swapped) == fold(text)


@given(st.text([*"abc I-'.,", *(form for forms in CONFUSABLES.values() for form in forms)]))
def test_folding_look_alikes_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


def letters_of(script: str) -> list[str]:
    """The small letters of a script without accents."""
    found = []
    for code in range(0x80, 0x20000):
        char = chr(code)
        plain = unicodedata.normalize("NFKD", char).casefold()
        is_letter = unicodedata.name(char, "").startswith(script) and char.isalpha()
        if is_letter and plain == char:
            found.append(char)
    return found


@pytest.mark.parametrize("script", ["CYRILLIC", "GREEK", "ARMENIAN", "COPTIC", "CHEROKEE", "LISU"])
def test_no_two_letters_of_a_script_become_one(script):
    letters = letters_of(script)
    assert len(letters) > 20
    folded = [fold(letter) for letter in letters if fold(letter)]
    assert len(set(folded)) == len(folded)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0441\u043e\u043d", "\u0441\u043e\u04bb"),  # Cyrillic: en, and shha
        ("\u0443\u043b", "\u04af\u043b"),  # Cyrillic: u, and straight u
        ("\u03bd\u03bf", "\u03c5\u03bf"),  # Greek: nu, and upsilon
        ("\u03bf", "\u03c3"),  # Greek: omicron, and sigma
        ("\u0578\u057c", "\u057c\u0578"),  # Armenian: vo, and ra
    ],
)
def test_words_of_another_script_stay_apart(one, other):
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("\uff23\uff28\uff21\uff24", "chad"),  # fullwidth
        ("\U0001d402\U0001d421\U0001d41a\U0001d41d", "chad"),  # mathematical bold
        ("\U0001d6c2den", "aden"),  # mathematical bold alpha
        ("\u1d04\u029c\u1d00\u1d05", "chad"),  # small capitals
        ("\u212aenya", "kenya"),  # Kelvin sign
        ("Ch\u0251d", "chad"),  # Latin alpha
        ("B\u0131ssau", "bissau"),  # dotless i
        ("\ua4da\ua4e7\ua4ee\ua4d3", "chad"),  # Lisu
        ("\u13df\u13bb\u13aa\u13a0", "chad"),  # Cherokee
        ("\uabaf\uab8b\uab7a\uab70", "chad"),  # Cherokee, small
        ("\u0421\u041d\u0410\u0500", "chad"),  # Cyrillic capitals
        ("\u216dhad", "chad"),  # Roman numeral
    ],
)
def test_a_name_in_letters_of_another_look_folds_to_the_latin_one(text, latin):
    assert fold(text) == latin


@pytest.mark.parametrize(
    ("one", "other"),
    [("Area 51", "Area Sl"), ("0slo", "Oslo"), ("1ran", "Iran"), ("l", "I"), ("5", "S")],
)
def test_digits_are_no_letters_and_i_is_no_l(one, other):
    assert fold(one) != fold(other)


def test_each_script_of_the_table_gives_each_latin_letter_once():
    for letters, looks in SCRIPTS[:-1]:
        assert len(set(looks)) == len(looks) == len(letters)
