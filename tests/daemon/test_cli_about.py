import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from cli_commands import LEAVES
from cli_terminal import MAIN, ROOT

from daemon import __version__, cli
from daemon.store.schema import MIGRATIONS


def completions(typed, shell="bash"):
    """What a shell is offered for a half-typed command line."""
    asked = {"_WISED_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": f"wised {typed}"}
    words = f"wised {typed}".split(" ")
    counted = {"COMP_WORDS": f"wised {typed}", "COMP_CWORD": str(len(words) - 1)}
    ran = subprocess.run(
        [sys.executable, "-c", MAIN],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **asked, **counted},
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_words_and_options_are_completed():
    assert set(completions("re")) == {"reload", "resume", "review", "release"}
    assert {"list", "show", "approve"} <= set(completions("fact "))
    assert "--expect" in completions("fact approve --e")
    assert completions("status --wa") == ["--watch"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_it_can_read(shell, tmp_path, capsys):
    assert cli.run(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert "_WISED_COMPLETE" in script.read_text()
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n", str(script)], check=True, timeout=60)


def test_bash_completes_by_the_script(tmp_path, capsys):
    assert cli.run(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    wised = tmp_path / "wised"
    wised.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{MAIN}" "$@"\n')
    wised.chmod(0o755)
    ask = (
        f'. "{script}"; COMP_WORDS=({wised} fact ap); COMP_CWORD=2; COMP_LINE="wised fact ap"\n'
        f'_wised_completion "{wised}"; echo "${{COMPREPLY[*]}}"'
    )
    ran = subprocess.run(
        ["bash", "-c", ask],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert ran.stdout.split() == ["approve"], ran.stderr


def test_an_unknown_shell_is_a_usage_error(capsys):
    assert cli.run(["completion", "tcsh"]) == 2


def test_the_version_names_what_it_depends_on(capsys):
    assert cli.run(["version"]) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert lines["wised"] == __version__
    assert lines["sqlite"] == sqlite3.sqlite_version
    assert lines["schema"] == str(len(MIGRATIONS))


def test_each_part_of_the_grammar_has_the_words_that_it_is_listed_for():
    assert set(cli.PARTS) == {words[0] for words in LEAVES}
    for word, part in cli.PARTS.items():
        built = {group.typer_instance.info.name for group in cli.grammar([word]).registered_groups}
        built |= {
            (command.name or command.callback.__name__)
            for command in cli.grammar([word]).registered_commands
        }
        assert built == {one for one, other in cli.PARTS.items() if other == part}


@pytest.mark.parametrize(
    "line",
    [["-C", "status", "--help"], ["--state=x", "--help"], ["--help"], ["help"], ["nonsense"], []],
    ids=" ".join,
)
def test_a_line_without_a_known_command_has_all_of_them(line, capsys):
    cli.run(line)
    said = capsys.readouterr()
    if "nonsense" in line:
        assert "No such command" in said.err
    else:
        assert "rollback" in said.out
        assert "doctor" in said.out
