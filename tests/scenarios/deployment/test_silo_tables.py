"""A table's section of `silo.toml` is changed in the text, and nothing else of the file is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedmodel.config import read_silo_file
from fedmodel.errors import ConfigError
from scenarios.deployment.silo_tables import add_keys, with_keys

LAW = """name = "north"  # ours
encryption = {secure_aggregation = "off"}

[tables.ward]
csv = "ward.csv"  # the export of Monday
decimal = "."

[tables."ward-2"]
csv = "other.csv"

[budgets.ward]
unit = "record"
delta = 1e-5
epsilon = 3.0
"""
KEYS = {"decimal": ",", "yes": ["ja", 'j"\\'], "no": ["nein"], "leave_out": ["größe"]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["ward", "ward-2"])
def test_keys_are_set_and_comments_and_all_else_stay(name: str, end: str) -> None:
    text = LAW.replace("\n", end)
    changed = with_keys(text, name, KEYS)
    document = tomllib.loads(text)
    document["tables"][name] |= KEYS
    assert tomllib.loads(changed) == document
    assert "# ours" in changed
    assert "# the export of Monday" in changed
    assert changed.count("\r\n") == (changed.count("\n") if end == "\r\n" else 0)
    assert with_keys(changed, name, KEYS) == changed


@pytest.mark.parametrize(
    "text",
    [
        LAW.replace("[tables.ward]\n", "[tables]\n[tables.ward-3]\n"),
        'name = "north"\ntables = {ward = {csv = "a.csv"}}\n',
        'name = "north"\ntables.ward.csv = "a.csv"\n',
        LAW.replace('decimal = "."', 'leave_out = [\n  "a",\n]'),
        LAW.replace('csv = "ward.csv"', 'query = """\n[tables.ward]\n"""\ncsv = "ward.csv"'),
    ],
)
def test_a_file_that_is_written_otherwise_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "silo.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"enter them by hand: .*leave_out"):
        add_keys(tmp_path, "ward", KEYS)
    assert (tmp_path / "silo.toml").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["silo.toml"]


def test_the_file_is_its_owners_alone_and_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "silo.toml").write_text(LAW)
    path = add_keys(tmp_path, "ward", KEYS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_silo_file(path).tables["ward"].yes == ("ja", 'j"\\')
