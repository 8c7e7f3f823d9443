"""What the README tells to type exists: launchers, flags, configs, tests, folders; and it opens with two commands."""

import re
from pathlib import Path

import pytest
from experiment_tools import launch

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", TEXT, re.M | re.S)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if "-m launchers." in line]
LAUNCHERS = sorted(path.stem for path in (PROJECT / "launchers").glob("*.py") if "app.run" in path.read_text())


def test_it_opens_with_one_command_that_trains_and_one_that_tests():
    opening = TEXT.split("\n## ")[0]
    commands = [line for block in re.findall(r"```\n(.*?)```", opening, re.S) for line in block.splitlines()]
    assert len(commands) == 2
    assert "-m launchers.train --gin_file=configs/tesp_wheeled_laptop.gin" in commands[0]
    assert "-m pytest -q" in commands[1]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_is_shown_with_flags_that_it_has(launcher):
    shown = [command for command in COMMANDS if f"-m launchers.{launcher} " in command]
    assert shown
    used = {flag for command in shown for flag in re.findall(r"--(\w+)", command.split("-m launchers.")[1])}
    text = launch(f"launchers.{launcher}", "--help").stdout
    assert used - set(re.findall(r"--(?:\[no\])?(\w+)", text)) == set()


def test_every_option_that_the_text_names_belongs_to_some_program():
    known = {"help", "overwrite", "verbosity", "logdir"}
    for launcher in LAUNCHERS:
        known |= set(re.findall(r"--(?:\[no\])?(\w+)", launch(f"launchers.{launcher}", "--help").stdout))
    named = {flag for code in re.findall(r"`([^`\n]+)`", TEXT) for flag in re.findall(r"(?:^| )--(\w+)", code)}
    assert named - known == set()


def test_files_that_the_text_names_exist():
    named = re.findall(r"\b((?:tests|configs|tesp|mbmpo|metarl|supplement|examples)/[\w./-]*\w)(?![\w*….<])", TEXT)
    assert len(named) > 30
    missing = [name for name in named if not (PROJECT / name).exists() and "…" not in name]
    assert missing == []


def test_every_promise_names_its_tests():
    table = TEXT.split("## Promises")[1].split("\n\n")[1].splitlines()[2:]
    assert len(table) == 8
    for row in table:
        assert re.search(r"\| `tests/[\w/]+\.py`", row), row
