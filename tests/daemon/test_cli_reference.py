"""docs/cli.md says what the commands are."""

import re

import pytest
from cli_commands import LEAVES

from daemon.cli import reference
from daemon.errors import EXIT_CODES

PAGE = reference.PAGE.read_text("utf-8")


def test_the_page_is_of_the_commands_as_they_are():
    """`python -m daemon.cli.reference` makes it so."""
    assert reference.page(PAGE) == PAGE


def test_every_command_has_a_section():
    assert re.findall(r"^### wised (.+)$", PAGE, re.M) == [" ".join(words) for words in LEAVES]


def test_the_exit_codes_are_those_that_there_are():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.M)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES
    assert set(reference.ALSO) <= {" ".join(words) for words in LEAVES}
    assert {code for codes in reference.ALSO.values() for code in codes} < set(EXIT_CODES)


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="reference"):
        reference.page("# The command line\n")
