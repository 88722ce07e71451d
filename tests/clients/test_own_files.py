"""A deployed silo's own images, IDX files and JSON lines: its file says where, and what holds of tables holds here."""

from __future__ import annotations

import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clients import sentences
from clients.silo import Silo
from fedmodel import plans
from fedmodel.config import Scenario, SiloFile, TableSource, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.data import check_sources, deployed_records, marks, saved, silo_records
from fedmodel.data.files import files_records
from fedmodel.data.findings_of_files import inspect_files
from fedmodel.data.pictures import as_png
from fedmodel.errors import ConfigError, DataError, PolicyRefused
from fedmodel.kinds.sources.images import ImagesConfig
from fedmodel.kinds.sources.json_lines import JsonLinesConfig
from scenarios.runs.withdrawing import withdraw
from tests.conftest import TINY
from tests.federations import Federation, issued
from tests.fedmodel.data.test_json_lines import TASKS

BASE = TINY[: TINY.index("[data]")]
IMAGES = """
[data]
source = "images"
name = "scans"
labels = ["clear", "suspect"]
size = [4, 3]
listing = "list.csv"
person = "patient"
"""
LINES = """
[data]
source = "json-lines"
name = "scans"
labels = ["clear", "suspect"]
length = 6
person = "patient"
"""
SAVED_TEXTS = LINES.replace("json-lines", "saved-texts")
SAVED_IMAGES = IMAGES.replace('"images"', '"saved-images"').replace('listing = "list.csv"\n', "")
IDX = """
[data]
source = "idx"
name = "scans"
labels = ["clear", "suspect"]
size = [4, 3]
"""
PERSON = {"column": "patient", "form": "digits"}
WORD = "hidden-word"
ROWS = (("007", "clear"), ("7", "suspect"), ("8", "clear"), ("9", "suspect"))


def lay_images(folder: Path, seed: int = 1, rows: tuple[tuple[str, str], ...] = ROWS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for place in range(len(rows)):
        Image.fromarray(draw.integers(0, 256, (4, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    lines = [f"{place}.png,{label},{person}" for place, (person, label) in enumerate(rows)]
    (folder / "list.csv").write_text("\n".join(["file,label,patient", *lines, ""]))


def lay_lines(folder: Path, seed: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"text": f"{WORD[place : place + 4]}{seed}{WORD}", "label": label, "patient": person}
             for place, (person, label) in enumerate(ROWS)]  # fmt: skip
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))


def lay_idx(folder: Path, seed: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    (folder / "x-images-idx3-ubyte").write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, 4, 4, 3) + pixels.tobytes())
    (folder / "x-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 4) + bytes([0, 1, 0, 1]))


def lay_saved(folder: Path, columns: dict[str, list[Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns |= {"label": [label for _, label in ROWS], "patient": [person for person, _ in ROWS]}
    for name, data in saved.written(columns).items():
        (folder / name).write_bytes(data)


def lay_saved_texts(folder: Path, seed: int = 1) -> None:
    lay_saved(folder, {"text": [f"{WORD[place : place + 4]}{seed}{WORD}" for place in range(len(ROWS))]})


def lay_saved_images(folder: Path, seed: int = 1) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(ROWS), 1, 4, 3), dtype=np.uint8)
    lay_saved(folder, {"image": [{"bytes": as_png(one), "path": None} for one in pixels]})


KINDS = {
    "images": (IMAGES, lay_images),
    "json-lines": (LINES, lay_lines),
    "idx": (IDX, lay_idx),
    "saved-texts": (SAVED_TEXTS, lay_saved_texts),
    "saved-images": (SAVED_IMAGES, lay_saved_images),
}


@dataclass
class Ward:
    """Silo north, deployed, whose kit is unlocked and whose file names a folder."""

    federation: Federation
    scenario: Scenario

    @property
    def kit(self) -> Path:
        return self.federation.kit("north")

    def law(self, tables: dict[str, Any], **keys: Any) -> SiloFile:
        document = read_silo_file(self.kit / "silo.toml").model_dump()
        law = SiloFile.model_validate({**document, **keys, "tables": tables})
        (self.kit / "silo.toml").write_text(silo_file_to_toml(law), encoding="utf-8")
        return law

    @property
    def silo(self) -> Silo:
        return Silo("north", self.scenario, "1", "cpu", self.kit, self.kit)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Federation]:
    found = {}
    for kind, (data, _) in KINDS.items():
        text = BASE + data
        if kind != "idx":
            text = text.replace('unit = "record"', 'unit = "person"\nmax_records = 1')
        found[kind] = issued(tmp_path_factory.mktemp(kind), scenario=text)
    return found


def ward_of(kind: str, made: dict[str, Federation], folder: Path) -> Ward:
    found = Ward(made[kind].copy(folder / "out"), read_scenario(str(made[kind].root.parent / "tiny.toml")))
    found.federation.unlock("north")
    KINDS[kind][1](found.kit / "own")
    whose = {} if kind == "idx" else {"person": PERSON}
    found.law({"scans": {"files": "own", **whose}})
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_silo_reads_its_folder_and_keeps_it_sealed(kind: str, made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of(kind, made, tmp_path)
    assert ward.scenario.data.model_dump()["folder"] is None
    ward.silo.check_data()
    records = ward.silo.records()
    assert len(records) == (4 if kind == "idx" else 3)  # "007" and "7" are one person, who has one record
    assert records.y_N.tolist() == ([0, 1, 0, 1] if kind == "idx" else [0, 0, 1])
    kept = (ward.kit / "cache" / "scans.age").read_bytes()
    assert WORD.encode() not in kept
    again = ward.silo.records()
    assert np.array_equal(again.y_N, records.y_N)
    if kind in ("json-lines", "saved-texts"):
        assert isinstance(records.x, dict)
        assert isinstance(again.x, dict)
        assert bytes((records.x["tokens"][0] - 1).astype(np.uint8)).decode() == f"{WORD[:4]}1{WORD[0]}"
        for name in ("tokens", "mask"):
            assert again.x[name].dtype == np.int64
            assert np.array_equal(again.x[name], records.x[name])
    else:
        assert records.x_NF.shape[1:] == (1, 4, 3)
        assert np.array_equal(again.x_NF, records.x_NF)
    assert (ward.kit / "cache" / "scans.age").read_bytes() == kept  # what was kept was used


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_is_of_the_folder_as_it_is_now(kind: str, made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of(kind, made, tmp_path)
    before = ward.silo.records()
    KINDS[kind][1](ward.kit / "own", 2)
    after = ward.silo.records()
    both = [one.x["tokens"] if isinstance(one.x, dict) else one.x_NF for one in (before, after)]
    assert not np.array_equal(*both)


def test_a_server_says_of_no_folder_which_is_read(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("images", made, tmp_path)
    lay_images(tmp_path / "others" / "north", 7)
    lay_images(tmp_path / "others" / "held-out", 8)
    theirs = ward.scenario.data.model_copy(update={"folder": str(tmp_path / "others")})
    asked = ward.scenario.model_copy(update={"data": theirs})
    ours = ward.silo.records()
    silo = Silo("north", asked, "1", "cpu", ward.kit, ward.kit)
    assert np.array_equal(silo.records().x_NF, ours.x_NF)


@pytest.mark.parametrize("kind", ["images", "json-lines", "saved-images", "saved-texts"])
def test_who_withdrew_is_not_read_whatever_stands_there(kind: str, made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of(kind, made, tmp_path)
    whole = ward.silo.records()
    kept = (ward.kit / "cache" / "scans.age").read_bytes()
    (tmp_path / "ids").write_text("8\n")
    done = withdraw(ward.kit, tmp_path / "ids", None)
    assert done.tables == ("scans",)
    (ward.kit / "cache" / "scans.age").write_bytes(kept)  # as one that was written at that very moment
    assert ward.silo.records().y_N.tolist() == [0, 1]
    assert (done.not_read, done.not_found) == ({}, {})
    if kind == "images":
        (ward.kit / "own" / "2.png").write_bytes(b"no image")
    elif kind.startswith("saved"):
        column, gone = ("image", {"bytes": b"no image", "path": None}) if kind == "saved-images" else ("text", WORD)
        path = ward.kit / "own" / "data-00000-of-00001.arrow"
        with pa.OSFile(str(path)) as file:
            told = pa.ipc.open_stream(file).read_all().to_pydict()
        told[column][2], told["label"][2], told["patient"][2] = gone, "no label", "08"
        path.write_bytes(saved.written(told)[path.name])
    else:
        lines = (ward.kit / "own" / "a.jsonl").read_text().splitlines()
        lines[2] = json.dumps({"patient": "08", "text": 5, "label": "no label"})
        (ward.kit / "own" / "a.jsonl").write_text("\n".join(lines))
    left = ward.silo.records()
    assert left.y_N.tolist() == [0, 1]
    assert len(whole) == 3
    # Whoever is on the list is known by the word of today, or nothing is read.
    ward.law({"scans": {"files": "own", "person": {"column": "patient", "form": "text"}}})
    with pytest.raises(ConfigError, match="persons withdrew by 'patient' in form"):
        ward.silo.records()


def test_files_that_say_of_nobody_whose_they_are_are_not_read_once_somebody_withdrew(
    made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of("idx", made, tmp_path)
    (ward.kit / "t.csv").write_text("patient,age\n7,3\n")
    ward.law({"scans": {"files": "own"}, "ward": {"csv": "t.csv", "person": PERSON}})
    (tmp_path / "ids").write_text("7\n")
    with pytest.raises(ConfigError, match=r"\[tables\.scans\] of silo\.toml does not say whose a row is"):
        withdraw(ward.kit, tmp_path / "ids", None)
    assert withdraw(ward.kit, tmp_path / "ids", "ward").left_out == ("scans",)
    assert len(ward.silo.records()) == 4  # its people said that they are in none of them


@pytest.mark.parametrize(
    ("kind", "table", "why"),
    [
        ("idx", {"files": "own", "person": PERSON}, "IDX files do not say whose an image is; leave person out"),
        ("images", {"files": "own", "person": {"column": "ward"}}, "the scenario says by 'patient' whose a record is"),
        ("images", {"files": "none"}, "none: is not a folder"),
        (
            "images",
            {"csv": "own/list.csv"},
            r'is a table, and the scenario says source = "images"; give files, a folder',
        ),
    ],
)
def test_what_cannot_be_read_so_is_said_before_anything_is_charged(
    kind: str, table: dict[str, Any], why: str, made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of(kind, made, tmp_path)
    ward.law({"scans": table})
    for look in (ward.silo.check_data, ward.silo.records):
        with pytest.raises((ConfigError, DataError), match=why) as refused:
            look()
        assert "\n" not in str(refused.value)


def test_a_table_is_read_of_no_folder_of_files(tmp_path: Path, made: dict[str, Federation]) -> None:
    ward = ward_of("images", made, tmp_path)
    text = BASE + (
        '[data]\nsource = "table"\nname = "scans"\nlabel = "ill"\nlabels = ["no", "yes"]\n'
        'columns = [{ name = "age", type = "float", range = [0.0, 100.0] }]\n'
    )
    (tmp_path / "t.toml").write_text(text)
    law = read_silo_file(ward.kit / "silo.toml")
    with pytest.raises(ConfigError, match=r"is no table, and the scenario says source = \"table\"; give csv, parquet"):
        deployed_records(read_scenario(str(tmp_path / "t.toml")), law, ward.kit, None)


def test_what_a_server_is_told_hangs_on_no_record(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("images", made, tmp_path)
    listing = ward.kit / "own" / "list.csv"
    for text in ("file,label,patient\n", "file,label,patient\nno.png,none,\n", listing.read_text()):
        listing.write_text(text)
        ward.silo.check_data()
    (ward.kit / "own" / "0.png").write_bytes(b"")
    ward.silo.check_data()
    with pytest.raises(DataError, match=r"own/0\.png: is no whole image"):
        ward.silo.records()
    listing.write_text("file,label\n")
    for look in (ward.silo.check_data, ward.silo.records):
        with pytest.raises(DataError, match=r"list\.csv: has no column 'patient'"):
            look()


@pytest.mark.parametrize("kind", ["images", "json-lines"])
def test_whose_a_record_is_is_said_once_or_nothing_is_read(
    kind: str, made: dict[str, Federation], tmp_path: Path
) -> None:
    """A second word on it would have a record read under it, though its person withdrew by the first."""
    ward = ward_of(kind, made, tmp_path)
    (tmp_path / "ids").write_text("8\n")
    withdraw(ward.kit, tmp_path / "ids", None)
    if kind == "images":
        (ward.kit / "own" / "list.csv").write_text("file,label,patient,patient\n2.png,clear,8,9\n")
        with pytest.raises(DataError, match=r"list\.csv: column 'patient' is there twice"):
            ward.silo.check_data()
    else:
        line = '{"text": "a", "label": "clear", "patient": "8", "p\\u0061tient": "9"}'
        (ward.kit / "own" / "a.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"is there twice|line 1: has an object with one key twice"):
        ward.silo.records()


@pytest.mark.parametrize(
    "row", ["x\u00e9.png,clear,7\n".encode("latin-1"), b'"' + b"x" * 140_000 + b"\n", b'x.png,clear,7,8,"\n', b"\0\n"]
)
def test_whether_a_listing_is_ready_hangs_on_its_first_line_alone(
    row: bytes, made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of("images", made, tmp_path)
    listing = ward.kit / "own" / "list.csv"
    listing.write_bytes(b"\xef\xbb\xbffile,label,patient\n" + row)
    ward.silo.check_data()
    with pytest.raises(DataError):
        ward.silo.records()
    for header, why in (
        (b"file,label,patient,\xe9\n", "header that is not text in UTF-8"),
        (b'file,label,patient,x"y,"z\n', "header that is no line of CSV"),
        (b'file,"label\n", patient\n', "header that is no line of CSV"),
        (b"file,label,\n", "has no column 'patient'"),
        (b"", "has no column 'file'"),
    ):
        listing.write_bytes(header + row)
        with pytest.raises(DataError, match=why if header else "has no column 'file'|not text in|no line of CSV"):
            ward.silo.check_data()


def test_a_folder_without_a_record_is_one_of_none(made: dict[str, Federation], tmp_path: Path) -> None:
    """As of a table: no answer of a silo hangs on how many records there are."""
    for kind in ("images", "json-lines"):
        ward = ward_of(kind, made, tmp_path / kind)
        for path in (ward.kit / "own").iterdir():
            path.unlink()
        (ward.kit / "own" / "list.csv").write_text("file,label,patient\n")
        assert len(ward.silo.records()) == 0
        assert len(ward.silo.records()) == 0


def test_errors_have_no_value(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("json-lines", made, tmp_path)
    for line, why in (
        ({"patient": WORD * 40, "text": "a", "label": "clear"}, "line 1: 'patient' is longer than"),
        ({"patient": "x" + WORD, "text": "a", "label": "clear"}, "line 1: 'patient' is no whole number"),
        ({"patient": "1", "text": "a", "label": WORD}, "line 1: 'label' is none of data.labels"),
        ({"patient": "1", "text": [WORD], "label": "clear"}, "line 1: 'text' is a list"),
    ):
        (ward.kit / "own" / "a.jsonl").write_text(json.dumps(line))
        with pytest.raises(DataError, match=why) as refused:
            ward.silo.records()
        assert WORD not in str(refused.value)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_kept_of_texts_is_what_was_read_whatever_is_learnt(
    task: str, made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of("json-lines", made, tmp_path)
    told = {"multi-label": ["pain", "rash"], "regression": 2.5, "sequence-labels": ["name", "other"]}
    text = ["a", "bc"] if task == "sequence-labels" else "abc"
    line = {"text": text, "patient": "7", **({"label": told[task]} if task in told else {})}
    (ward.kit / "own" / "a.jsonl").write_text(json.dumps(line))
    said = {"source": "json-lines", "name": "scans", "length": 6, "person": "patient", **TASKS[task]}
    data = JsonLinesConfig.model_validate(said)
    silo = Silo("north", ward.scenario.model_copy(update={"data": data}), "1", "cpu", ward.kit, ward.kit)
    read, kept = silo.records(), silo.records()
    assert read.y_N.shape == (1, *data.shape.targets.size)
    assert read.y_N.dtype == kept.y_N.dtype
    assert np.array_equal(read.y_N, kept.y_N)


# One source, one budget.


def two(ward: Ward, other: dict[str, Any]) -> SiloFile:
    figures = {"unit": "record", "delta": 1e-3, "epsilon": 5.0}
    return ward.law({"scans": {"files": "own"}, "again": other}, budgets={"scans": figures, "again": figures})


def test_one_folder_is_not_spent_under_two_budgets(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("images", made, tmp_path)
    for same in ({"files": "own"}, {"files": "./own"}, {"files": "own/deep"}, {"csv": "own/list.csv"}):
        with pytest.raises(ValueError, match=r"are (the same path|a folder and what lies in it)"):
            two(ward, same)
    lay_images(ward.kit / "other", 9, (("5", "clear"), ("6", "suspect")))
    law = two(ward, {"files": "other"})
    check_sources(law, ward.kit)
    (ward.kit / "other" / "deep").mkdir()
    for lay in (os.symlink, os.link, shutil.copyfile):
        path = ward.kit / "other" / "deep" / "x.png"
        lay(ward.kit / "own" / "1.png", path)
        with pytest.raises(PolicyRefused, match=r"are (one file|copies of one file), .*1\.png"):
            check_sources(law, ward.kit)
        path.unlink()
    (ward.kit / "other" / "door").symlink_to(ward.kit / "own", target_is_directory=True)
    with pytest.raises(DataError, match=r"other/door: is a link to a folder"):
        check_sources(law, ward.kit)


def test_a_folder_that_was_charged_is_known_again_under_another_name_by_a_part_of_it(
    made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of("images", made, tmp_path)
    figures = {"unit": "person", "max_records": 1, "delta": 1e-3, "epsilon": 5.0}
    ward.law({"scans": {"files": "own", "person": PERSON}}, budgets={"scans": figures})
    with ward.silo.ledger() as ledger:
        ward.silo.reserve(ledger, plans.planned_event(ward.silo.plan))
    (ward.kit / "part").mkdir()
    (ward.kit / "own" / "1.png").rename(ward.kit / "part" / "moved.png")
    (ward.kit / "part" / "list.csv").write_text("file,label,patient\nmoved.png,clear,5\n")
    ward.law({"again": {"files": "part", "person": PERSON}}, budgets={"again": figures})
    data = ward.scenario.data.model_copy(update={"name": "again"})
    silo = Silo("north", ward.scenario.model_copy(update={"data": data}), "2", "cpu", ward.kit, ward.kit)
    with silo.ledger() as ledger, pytest.raises(PolicyRefused, match="was charged to scans/person-1 before"):
        silo.reserve(ledger, plans.planned_event(silo.plan))


def test_a_ledger_tells_nothing_of_how_many_files_there_are(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("images", made, tmp_path)
    figures = {"unit": "person", "max_records": 1, "delta": 1e-3, "epsilon": 50.0}
    ward.law({"scans": {"files": "own", "person": PERSON}}, budgets={"scans": figures})
    told = []
    for run, rows in enumerate((ROWS, ROWS, (*ROWS, ("10", "clear")))):
        lay_images(ward.kit / "own", 1, rows)
        silo = Silo("north", ward.scenario, str(run + 1), "cpu", ward.kit, ward.kit)
        with silo.ledger() as ledger:
            silo.reserve(ledger, plans.planned_event(silo.plan))
            told.append(ledger.audits("source")[-1]["marks"].split())
    assert [len(set(marks_)) for marks_ in told] == [1 + 2 * 256] * 3
    assert len({mark for marks_ in told for mark in marks_}) == 3 * (1 + 2 * 256)


def contents(folder: Path) -> set[bytes]:
    """Return by what the files of a folder are remembered, wherever they lie."""
    return {mark for mark in marks(TableSource(files=str(folder)))[0] if mark.startswith(b'["content"')}


def test_of_many_files_as_many_are_remembered_as_two_folders_choose_alike(tmp_path: Path) -> None:
    """By what they hold, whatever they are called."""
    for place in range(600):
        for name in ("all", "again", "tenth") if place % 10 == 0 else ("all", "again"):
            (tmp_path / name).mkdir(exist_ok=True)
            said = place if name == "all" else f"scan-{997 * place % 600}"
            (tmp_path / name / f"{said}.png").write_bytes(place.to_bytes(4) * (place % 7 + 1))
    chosen = contents(tmp_path / "all")
    assert len(chosen) == 256
    assert contents(tmp_path / "again") == chosen
    assert 10 <= len(contents(tmp_path / "tenth") & chosen) <= 60


def test_files_that_begin_alike_are_chosen_by_what_follows_and_copies_of_one_once(tmp_path: Path) -> None:
    """As pictures that begin with a dark border do, and blank ones."""
    for place in range(300):
        for name, said in (("all", place), ("again", f"scan-{997 * place % 300}")):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{said}.bmp").write_bytes(bytes(5_000) + place.to_bytes(4))
            (tmp_path / name / f"blank-{said}.bmp").write_bytes(bytes(5_004))
    chosen = contents(tmp_path / "all")
    assert len(chosen) == 256
    assert contents(tmp_path / "again") == chosen


def test_a_file_that_is_listed_and_cannot_be_looked_at_lets_nothing_pass(
    made: dict[str, Federation], tmp_path: Path
) -> None:
    """Nor does it hide the files behind it."""
    ward = ward_of("json-lines", made, tmp_path)
    (ward.kit / "other").mkdir()
    law = two(ward, {"files": "other"})
    check_sources(law, ward.kit)
    (ward.kit / "other" / "0.jsonl").symlink_to(tmp_path / "nowhere")
    shutil.copyfile(ward.kit / "own" / "a.jsonl", ward.kit / "other" / "b.jsonl")
    with pytest.raises(DataError, match=r"0\.jsonl: cannot be read \(No such file"):
        check_sources(law, ward.kit)
    (ward.kit / "other" / "0.jsonl").unlink()
    with pytest.raises(PolicyRefused, match="are copies of one file"):
        check_sources(law, ward.kit)
    check_sources(two(ward, {"csv": "none.csv"}), ward.kit)  # where nothing lies yet, nothing is the same


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_reader_takes_is_no_source_and_what_one_takes_is(
    kind: str, made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of(kind, made, tmp_path)
    law = two(ward, {"files": "other"})
    (ward.kit / "other").mkdir()
    taken = sorted(path.name for path in (ward.kit / "own").iterdir() if path.suffix != ".json")
    for name in (".DS_Store", "README", f"._{taken[0]}"):
        for folder in ("own", "other"):
            (ward.kit / folder / name).write_text("as it lies everywhere")
    check_sources(law, ward.kit)
    assert len(ward.silo.records()) == 4
    for name in taken:
        shutil.copyfile(ward.kit / "own" / name, ward.kit / "other" / name)
        with pytest.raises(PolicyRefused, match="are copies of one file"):
            check_sources(law, ward.kit)
        (ward.kit / "other" / name).unlink()


def test_a_listing_names_no_file_that_no_budget_would_see(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("images", made, tmp_path)
    for name in (".0.png", "0.data"):
        shutil.copyfile(ward.kit / "own" / "0.png", ward.kit / "own" / name)
        (ward.kit / "own" / "list.csv").write_text(f"file,label,patient\n{name},clear,7\n")
        with pytest.raises(DataError, match="row 1: its file is no image by its name; known endings are"):
            ward.silo.records()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("images", ["z.png", "deep/y.png", "README"]),
        ("json-lines", ["z.json", "deep/y.jsonl", "README"]),
        ("idx", ["t10k-images-idx3-ubyte", "deep/x-images-idx3-ubyte", "README"]),
        ("saved-texts", ["data-00001-of-00002.arrow", "deep/state.json", "README"]),
    ],
)
def test_every_file_of_a_folder_is_read_or_said_not_to_be(
    kind: str, names: list[str], made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of(kind, made, tmp_path)
    law = read_silo_file(ward.kit / "silo.toml").tables["scans"].under(ward.kit)
    config: Any = ward.scenario.data
    assert inspect_files(config, law).found == ()
    (ward.kit / "own" / "deep").mkdir()
    for name in names:
        (ward.kit / "own" / name).write_bytes(b"of nobody")
    found = inspect_files(config, law)
    assert not found.refused
    assert sorted(value for one in found.found for value in one.values) == sorted(names)
    (ward.kit / "own" / "door").symlink_to(tmp_path, target_is_directory=True)
    assert inspect_files(config, law).refused  # as by a run, which asks which files there are
    with pytest.raises(DataError, match="door: is a link to a folder"):
        ward.silo.records()


def test_images_beside_the_folders_of_labels_are_said_not_to_be_read(tmp_path: Path) -> None:
    config = ImagesConfig.model_validate(
        {"source": "images", "name": "scans", "labels": ["clear", "suspect"], "size": [4, 3]}
    )
    lay_images(tmp_path)
    (tmp_path / "clear").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "clear" / "0.png")
    found = inspect_files(config, TableSource(files=str(tmp_path)))
    assert [one.values for one in found.found] == [("list.csv",), ("1.png", "2.png", "3.png")]
    assert found.records == 1


@pytest.mark.parametrize("lay", [None, os.symlink, os.link])
def test_an_image_that_a_listing_names_twice_is_refused(lay: Any, made: dict[str, Federation], tmp_path: Path) -> None:
    """It would be two records, or two persons', and be charged as each one's alone."""
    ward = ward_of("images", made, tmp_path)
    name = "../own/0.png" if lay is None else "z.png"
    if lay is not None:
        lay(ward.kit / "own" / "0.png", ward.kit / "own" / name)
    (ward.kit / "own" / "list.csv").write_text(f"file,label,patient\n0.png,clear,7\n1.png,clear,9\n{name},clear,8\n")
    with pytest.raises(DataError, match=r"row 3: its file was named in row 1; name each once"):
        ward.silo.records()
    (tmp_path / "ids").write_text("8\n")
    withdraw(ward.kit, tmp_path / "ids", None)
    assert len(ward.silo.records()) == 2  # a row that is not read names nothing


# What a person is told.


def test_a_law_says_which_folder_is_read_and_no_columns_of_files_are_left_out(
    made: dict[str, Federation], tmp_path: Path
) -> None:
    ward = ward_of("images", made, tmp_path)
    said = " ".join(sentences.sentences(read_silo_file(ward.kit / "silo.toml")))
    assert (
        "scans is read from the files in own, which are images, IDX files, JSON lines or a saved data set, as the"
        " scenario says." in said
    )
    with pytest.raises(ValueError, match="leave_out is of tables"):
        ward.law({"scans": {"files": "own", "person": PERSON, "leave_out": ["ward"]}})


def test_a_simulation_and_a_silo_read_one_folder_alike(made: dict[str, Federation], tmp_path: Path) -> None:
    ward = ward_of("images", made, tmp_path)
    for party in (*ward.scenario.federation.silos, "held-out"):
        lay_images(tmp_path / "sim" / party, len(party), (("1", "clear"), ("2", "suspect")))
    data = ward.scenario.data.model_copy(update={"folder": str(tmp_path / "sim")})
    simulated = silo_records(ward.scenario.model_copy(update={"data": data}), "north")
    law = ward.law({"scans": {"files": str(tmp_path / "sim" / "north")}})
    deployed = files_records(ward.scenario.data, law.tables["scans"])  # type: ignore[arg-type]
    assert np.array_equal(simulated.x_NF, deployed.x_NF)
    assert np.array_equal(simulated.y_N, deployed.y_N)
