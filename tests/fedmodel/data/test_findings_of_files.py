"""All that a run would refuse of a silo's own files is told at once, by file, field and rule; a run agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedmodel.config import TableSource, data_from_json
from fedmodel.data import idx, reading, saved
from fedmodel.data.files import files_records
from fedmodel.data.findings import Finding
from fedmodel.data.findings_of_files import inspect_files
from fedmodel.data.pictures import as_png
from fedmodel.errors import DataError
from tests.scenarios.runs.test_files_held_out import PIXELS

WORD = "hidden-word"
LINES = {"source": "json-lines", "name": "files", "labels": ["no", "yes"], "length": 4, "person": "who"}
IMAGES = {"source": "images", "name": "files", "labels": ["no", "yes"], "size": [4, 3]}


def config(said: dict[str, Any], **more: Any) -> Any:
    return data_from_json(json.dumps({**said, **more}))


def found(said: dict[str, Any], folder: Path, **more: Any) -> list[Finding]:
    """Return what refuses the files, to which a run agrees."""
    source = TableSource.model_validate({"files": str(folder), **({"person": "who"} if "person" in said else {})})
    told = inspect_files(config(said, **more), source)
    if told.refused:
        with pytest.raises(DataError):
            files_records(config(said, **more), source)
    else:
        assert len(files_records(config(said, **more), source)) == told.records
    return [one for one in told.found if one.refuses]


def line(**said: Any) -> str:
    return json.dumps({"text": "a", "label": "no", "who": "1", **said})


def test_every_line_is_named_by_its_file_field_and_rule(tmp_path: Path) -> None:
    whole = [line(), line(label=WORD), "not json", line(text=5), line(label=WORD + "2"), "", line(who=WORD * 90)]
    (tmp_path / "a.jsonl").write_text("\n".join(whole))
    (tmp_path / "b.jsonl").write_text("\n".join([line(label=3), json.dumps({"who": "2", "label": "no"})]))
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    told = [(one.where, one.column, one.rows, one.count, one.what) for one in found(LINES, tmp_path)]
    assert set(told) == {
        (a, None, (3,), 1, "is no JSON in UTF-8"),
        (a, "who", (7,), 1, "'who' is longer than 200 characters"),
        (a, "label", (2, 5), 2, "'label' is none of data.labels: no, yes"),
        (a, "text", (4,), 1, "'text' is a int, and text is needed"),
        (b, "label", (1,), 1, "'label' is none of data.labels: no, yes"),
        (b, "text", (2,), 1, "has no field 'text'"),
    }
    assert WORD not in str(told)
    (tmp_path / "a.jsonl").write_text("\n".join([line(), line(label="yes")]))
    (tmp_path / "b.jsonl").unlink()
    assert found(LINES, tmp_path) == []


def cut_short(path: Path) -> None:
    """Write a picture of noise of which the end is missing."""
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 3, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])


def test_every_image_is_named_by_its_rule(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "perhaps").mkdir()
    for place, size in enumerate([(3, 4), (3, 5), (3, 5), (3, 4)]):
        Image.new("L", size).save(tmp_path / "no" / f"{place}.png")
    (tmp_path / "no" / "3.png").write_bytes(b"no image")
    (tmp_path / "no" / "4.png").write_bytes(b"")
    cut_short(tmp_path / "no" / "5.png")
    cut_short(tmp_path / "no" / "6.jpg")
    (tmp_path / "no" / "7.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "no" / "list.txt").write_text("x")
    told = {one.what: [Path(name).name for name in one.values] for one in found(IMAGES, tmp_path)}
    assert told == {
        "its name is none of data.labels: no, yes": ["perhaps"],
        "is no image file": ["list.txt"],
        "is 5x3, and data.size = [4, 3] is declared": ["1.png", "2.png"],
        "is no whole image that is read: it begins as none of PNG, JPEG, BMP, TIFF does, whatever its name says": [
            "3.png"
        ],
        "is no whole image that is read: it is empty": ["4.png"],
        "is no whole image that is read: it is cut short or damaged, or packed in a way that is not read": [
            "5.png",
            "6.jpg",
            "7.jpg",
        ],
    }


def test_every_row_of_a_listing_is_named(tmp_path: Path) -> None:
    Image.new("L", (3, 4)).save(tmp_path / "0.png")
    rows = ["0.png,no,1", "0.png,yes,2", "1.png,no,3", "0.png,none,4", ",no,5", "0.png,no,"]
    (tmp_path / "list.csv").write_text("\n".join(["file,label,who", *rows, ""]))
    told = found({**IMAGES, "person": "who"}, tmp_path, listing="list.csv")
    assert [(one.rows, one.column) for one in told] == [
        ((2,), "file"), ((3,), "file"), ((4,), "label"), ((5,), "file"), ((6,), "who"),
    ]  # fmt: skip
    assert {one.where for one in told} == {str(tmp_path / "list.csv")}


def test_every_label_of_an_idx_file_and_every_row_of_a_saved_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / f"x{idx.IMAGES}").write_bytes(idx.written(PIXELS[:5]))
    (tmp_path / "idx" / f"x{idx.LABELS}").write_bytes(idx.written(np.array([0, 7, 1, 7, 1], np.uint8)))
    (one,) = found({**IMAGES, "source": "idx"}, tmp_path / "idx")
    assert (one.rows, one.where) == ((1, 3), str(tmp_path / "idx" / f"x{idx.LABELS}"))
    (tmp_path / "saved").mkdir()
    pictures = [{"bytes": as_png(PIXELS[:1]), "path": None}, {"bytes": b"none", "path": None}, None]
    columns = {"image": pictures, "label": ["no", "yes", "no"], "who": ["1", "2", "3"]}
    for name, data in saved.written(columns).items():
        (tmp_path / "saved" / name).write_bytes(data)
    told = found({**IMAGES, "source": "saved-images", "person": "who"}, tmp_path / "saved")
    assert [one.rows for one in told] == [(2,), (3,)]
    columns["who"][1] = ""
    for name, data in saved.written(columns).items():
        (tmp_path / "saved" / name).write_bytes(data)
    (one,) = found({**IMAGES, "source": "saved-images", "person": "who"}, tmp_path / "saved")
    assert (one.column, one.what.partition(" (")[0]) == (
        "who",
        "the id in row 2 of the file is empty, or nothing but space",
    )


def test_what_is_no_records_fault_is_told_alone_and_what_is_wrong_everywhere_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = found({**IMAGES, "source": "saved-images"}, tmp_path)
    assert "state.json: cannot be read" in one.what
    monkeypatch.setattr(reading, "MOST_BROKEN", 3)
    (tmp_path / "a.jsonl").write_text("\n".join([line(label=WORD)] * 9))
    told = found(LINES, tmp_path)
    assert [one.count for one in told] == [3, 0]
    assert told[0].rows == (1, 2, 3)
