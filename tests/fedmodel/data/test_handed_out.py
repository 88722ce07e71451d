"""By which word rows were handed out is kept, and by another one no table of that source is read."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import TableSource
from fedmodel.crypto.sealed import new_age_key, opener_from_secret, read_sealed, write_sealed
from fedmodel.data import add_handed_out, check_holds_out, read_handed_out
from fedmodel.data.handed_out import HANDED_OUT
from fedmodel.errors import ConfigError, DataError

ROWS = "patient,case,age\n1,7,31\n2,8,40\n"
KEYS: dict[str, Any] = {"csv": "a.csv", "person": {"column": "patient", "form": "digits"}, "held_out": 0.2}


def source(folder: Path, **keys: Any) -> TableSource:
    return TableSource.model_validate(KEYS | keys).under(folder)


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "a.csv").write_text(ROWS)
    (tmp_path / "b.csv").write_text(ROWS.replace("40", "41"))
    return new_age_key()


def given(folder: Path, key: tuple[str, str], table: str = "ward", **keys: Any) -> None:
    add_handed_out(folder, opener_from_secret(key[0]), key[1], table, source(folder, **keys))


@pytest.mark.parametrize(
    "now",
    [
        {"person": {"column": "patient", "form": "text"}},
        {"person": {"column": "case", "form": "digits"}},
        {"person": None, "held_out": None},
        {"held_out": None},
        {"held_out": 0.19999},
    ],
)
@pytest.mark.parametrize("table", ["ward", "ward-2027"])
def test_another_column_form_or_smaller_share_is_refused(
    tmp_path: Path, key: tuple[str, str], now: dict[str, Any], table: str
) -> None:
    """By the name, or of the same source under another: in its place, or as a copy."""
    given(tmp_path, key)
    handed = read_handed_out(tmp_path, opener_from_secret(key[0]))
    shutil.copyfile(tmp_path / "a.csv", tmp_path / "copy.csv")
    for csv in ("a.csv", "copy.csv", *(["b.csv"] if table == "ward" else [])):
        with pytest.raises(ConfigError, match=r"held_out = 0\.2 of 'ward' was handed out, by column 'patient'"):
            check_holds_out(handed, table, source(tmp_path, csv=csv, **now))
    for csv in ("a.csv", "copy.csv"):
        check_holds_out(handed, table, source(tmp_path, csv=csv))
        check_holds_out(handed, table, source(tmp_path, csv=csv, held_out=0.5))
    check_holds_out(handed, "lab", source(tmp_path, csv="b.csv", **now))
    check_holds_out({}, table, source(tmp_path, **now))


def test_the_largest_share_is_kept_and_every_place(tmp_path: Path, key: tuple[str, str]) -> None:
    given(tmp_path, key)
    given(tmp_path, key, csv="b.csv", held_out=0.5)
    handed = read_handed_out(tmp_path, opener_from_secret(key[0]))
    for csv in ("a.csv", "b.csv"):
        with pytest.raises(ConfigError, match=r"held_out = 0\.5"):
            check_holds_out(handed, "again", source(tmp_path, csv=csv, held_out=0.4))
    with pytest.raises(ConfigError, match=r"held_out = 0\.5"):
        given(tmp_path, key)
    assert read_handed_out(tmp_path, opener_from_secret(key[0])) == handed


def test_the_file_tells_nothing_and_has_no_id(tmp_path: Path, key: tuple[str, str]) -> None:
    opener = opener_from_secret(key[0])
    assert read_handed_out(tmp_path, opener) == {}
    given(tmp_path, key)
    path = tmp_path / HANDED_OUT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_sealed(path, opener)) == 65_536
    assert b"ward" not in path.read_bytes()


@pytest.mark.parametrize("how", ["cut", "another's", "not ours", "no share", "newer", "a folder"])
def test_a_file_that_does_not_open_is_not_taken_for_none(tmp_path: Path, key: tuple[str, str], how: str) -> None:
    given(tmp_path, key)
    opener, path = opener_from_secret(key[0] if how != "another's" else new_age_key()[0]), tmp_path / HANDED_OUT
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how != "another's":
        path.unlink()
        if how == "a folder":
            path.mkdir()
        else:
            said = b'{"column": "patient", "form": "text", "share": 0, "marks": []}'
            plain = {"not ours": b"[]", "no share": b'{"version": 1, "tables": {"ward": %s}}' % said}
            write_sealed(path, plain.get(how, b'{"version": 3, "tables": {}}'), (key[1],))
    with pytest.raises(DataError, match=r"handed-out\.age: "):
        read_handed_out(tmp_path, opener)
