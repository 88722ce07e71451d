"""Whose records there are is found in files as in tables, without a scenario; of what cannot be read nobody is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import PersonColumn, TableSource
from fedmodel.data import saved, table_lookalikes
from fedmodel.data.ids import ids_in
from fedmodel.errors import DataError
from fedmodel.provision import read_law
from scenarios.runs.inspection import lookalikes_of
from tests.scenarios.runs.test_withdrawing import PERSON, Ward, made, ward

__all__ = ["made", "ward"]  # fixtures
WORD = "hidden-word"
DIGITS = PersonColumn(column="who", form="digits")


def lay(folder: Path, kind: str, ids: list[Any]) -> None:
    folder.mkdir(exist_ok=True)
    if kind == "lines":
        half = len(ids) // 2
        for name, some in (("a.jsonl", ids[:half]), ("b.jsonl", ids[half:])):
            (folder / name).write_text("\n\n".join(json.dumps({"who": one, "text": WORD}) for one in some))
    if kind == "listing":
        rows = "".join(f"{place}.png,no,{one}\n" for place, one in enumerate(ids))
        (folder / "list.csv").write_text(f"\ufefffile,label,who\n{rows}")
        (folder / "other.csv").write_text("file,label\nx.png,no\n")
    if kind == "saved":
        for name, data in saved.written({"who": [str(one) for one in ids], "label": ["no"] * len(ids)}).items():
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("kind", ["lines", "listing", "saved"])
def test_ids_are_found_where_they_stand(kind: str, tmp_path: Path) -> None:
    lay(tmp_path, kind, [7, "008", "9", "12"])
    found = dict(ids_in(TableSource(files=str(tmp_path)), DIGITS))
    assert list(found) == ["7", "8", "9", "12"]
    places = {"lines": ("a.jsonl: line 3", "b.jsonl: line 1"), "listing": ("list.csv: row 2", "list.csv: row 3"),
              "saved": ("of-00001.arrow: row 2", "of-00001.arrow: row 3")}  # fmt: skip
    assert (found["8"].endswith(places[kind][0]), found["9"].endswith(places[kind][1])) == (True, True)


@pytest.mark.parametrize("kind", ["lines", "listing", "saved"])
def test_an_id_that_its_form_does_not_admit_is_named_by_its_place(kind: str, tmp_path: Path) -> None:
    lay(tmp_path, kind, ["7", WORD])
    with pytest.raises(DataError, match="is no whole number") as refused:
        dict(ids_in(TableSource(files=str(tmp_path)), DIGITS))
    assert WORD not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_folder_that_says_of_nobody_is_said_to(tmp_path: Path) -> None:
    source = TableSource(files=str(tmp_path / "own"))
    with pytest.raises(DataError, match="own: is not a folder"):
        list(ids_in(source, DIGITS))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"has no \*\.jsonl, no listing with a column 'who' and no saved data set"):
        list(ids_in(source, DIGITS))
    (tmp_path / "own" / "a.jsonl").write_text('{"text": "a"}')
    with pytest.raises(DataError, match=r"a\.jsonl: line 1: has no field 'who'"):
        list(ids_in(source, DIGITS))
    (tmp_path / "own" / "a.jsonl").write_text("")
    assert list(ids_in(source, DIGITS)) == []


@pytest.mark.parametrize("kind", ["lines", "listing", "saved"])
def test_ids_that_look_alike_are_found_in_files(kind: str, ward: Ward) -> None:
    lay(ward.kit / "own", kind, ["P-7", "P-8", "p-007", "P-9"])
    person = {"column": "who", "form": "text"}
    ward.law({"ward": {"csv": "ward.csv", "person": PERSON}, "scans": {"files": "own", "person": person}})
    found = lookalikes_of(ward.kit, read_law(ward.kit))
    assert list(found) == ["ward", "scans"]
    ((first, third),) = found["scans"]
    assert first != third
    assert "own" in first
    assert found["scans"] == table_lookalikes(TableSource(files=str(ward.kit / "own")), PersonColumn(**person))


@pytest.mark.parametrize("kind", ["lines", "listing", "saved"])
def test_who_withdraws_is_looked_for_in_files(kind: str, ward: Ward) -> None:
    lay(ward.kit / "own", kind, ["07", "8"])
    person = {"column": "who", "form": "digits"}
    ward.law({"ward": {"csv": "ward.csv", "person": PERSON}, "scans": {"files": "own", "person": person}})
    done = ward.withdraw("7", "9", "5")
    assert (done.not_read, done.not_found) == ({}, {"ward": [3], "scans": [2, 3]})
    (ward.kit / "own" / "z.jsonl").write_text("not json")
    done = ward.withdraw("8")
    assert done.not_found == {}
    assert "z.jsonl: line 1: is no JSON in UTF-8" in done.not_read["scans"]
