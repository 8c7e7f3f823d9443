"""The supplement says what the code does: its tables are up to date and the options it names exist."""

import re
from pathlib import Path

import pytest

from metarl.experiment import gin_bindings

FOLDER = Path(__file__).resolve().parents[2] / "supplement"


def test_settings_are_up_to_date(supplement):
    """If this fails: python supplement/generate.py."""
    assert supplement.SETTINGS.read_text(encoding="utf-8") == supplement.settings_document()


def test_check_reports_a_stale_file_and_writes_nothing(supplement, monkeypatch, tmp_path, capsys):
    stale = tmp_path / "settings.md"
    monkeypatch.setattr(supplement, "ROOT", tmp_path)
    monkeypatch.setattr(supplement, "SETTINGS", stale)
    monkeypatch.setattr(supplement, "settings_document", lambda: "text")
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert supplement.main() == 1
    assert not stale.exists()
    stale.write_text("other")
    assert supplement.main() == 1
    assert stale.read_text() == "other"
    assert "settings.md is out of date" in capsys.readouterr().err
    stale.write_text("text")
    assert supplement.main() == 0


def test_experiments_of_one_scale_must_agree(supplement):
    with pytest.raises(ValueError, match=r"gamma is 0.99 in a and 0.9 in b"):
        supplement._agreed({"a": {"gamma": 0.99}, "b": {"gamma": 0.9}})


def test_options_named_in_the_readme_exist(supplement):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    options = re.findall(r"`([A-Z]\w+)\.(\w+)(?: = (.+?))?`", text)
    assert len(options) >= 12
    for owner, parameter, _ in options:
        known = [gin_bindings.parameters(name) for name in gin_bindings.matches(owner)]
        assert any(parameter in names for names in known), f"{owner}.{parameter}"


def test_every_decision_is_told_once():
    told = re.findall(r"\bD(\d+)\b", (FOLDER / "README.md").read_text(encoding="utf-8").split("## Decisions")[1])
    assert sorted(map(int, told)) == list(range(1, 31))


def test_every_decision_of_mbmpo_is_told_once():
    text = (FOLDER / "README.md").read_text(encoding="utf-8").split("## MB-MPO: decisions")[1]
    listed, _, left_out = text.partition("Left out:")
    told = re.findall(r"^- O-(\d+)\b", listed, re.M) + re.findall(r"\bO-(\d+)\b", left_out)
    assert sorted(map(int, told)) == list(range(1, 33))


def test_links_lead_somewhere():
    for path in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), target
        for config in re.findall(r"`(configs/[\w/]+\.gin)`", path.read_text(encoding="utf-8")):
            assert (path.parents[1] / config).is_file(), config
