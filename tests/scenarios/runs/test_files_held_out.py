"""A silo holds a part of its own files out: it never trains, and the server reads it as the silo's own is read."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clients.sentences import sentences
from clients.silo import Silo
from fedmodel.config import TableSource, data_from_json, read_silo_file
from fedmodel.crypto.sealed import opener_from_secret
from fedmodel.data import Records, held_out_table, idx, saved
from fedmodel.data.handed_out import HANDED_OUT, read_handed_out
from fedmodel.data.holding_out import is_held_out
from fedmodel.data.pictures import as_png, digest_of
from fedmodel.errors import ConfigError, DataError
from fedmodel.provision import unlocked
from scenarios.runs.handing_out import HandedOut, hand_out
from scenarios.runs.withdrawing import withdraw
from tests.scenarios.runs.test_withdrawing import PERSON, Ward, made, ward

__all__ = ["made", "ward"]  # fixtures
SHARE, COUNT = 0.4, 20
WORD = "hidden-word"
LABELS = ["no", "yes"]
PIXELS = np.random.default_rng(5).integers(0, 256, (COUNT, 4, 3), dtype=np.uint8)
IDS = [str(987_654_100 + place) for place in range(COUNT)]
BY_ID = {place for place, one in enumerate(IDS) if is_held_out(one, SHARE)}
BY_PICTURE = {place for place in range(COUNT) if is_held_out(f"picture {digest_of(PIXELS[place])}", SHARE)}


def label(place: int) -> str:
    return LABELS[place % 2]


def lay_folders(folder: Path) -> None:
    for place in range(COUNT):
        (folder / label(place)).mkdir(parents=True, exist_ok=True)
        note = PngInfo()
        note.add_text("patient", WORD)
        Image.fromarray(PIXELS[place]).save(folder / label(place) / f"{WORD}-{place:03d}.png", pnginfo=note)


def lay_listing(folder: Path) -> None:
    folder.mkdir()
    rows = [(f"{WORD}-{place}.png", label(place), f"0{IDS[place]}", "x") for place in range(COUNT)]
    for place, (name, *_) in enumerate(rows):
        Image.fromarray(PIXELS[place]).save(folder / name)
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "patient", "ward"), *rows])


def lay_idx(folder: Path) -> None:
    folder.mkdir()
    (folder / f"x{idx.IMAGES}").write_bytes(idx.written(PIXELS))
    (folder / f"x{idx.LABELS}").write_bytes(idx.written(np.array([place % 2 for place in range(COUNT)], np.uint8)))


def lay_lines(folder: Path) -> None:
    folder.mkdir()
    lines = [
        {"text": f"t{place}", "label": label(place), "patient": int(IDS[place]), "note": WORD} for place in range(COUNT)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))


def lay_saved(folder: Path, column: str, values: list[Any]) -> None:
    folder.mkdir()
    columns = {
        column: values,
        "label": [label(place) for place in range(COUNT)],
        "note": [WORD] * COUNT,
        "patient": IDS,
    }
    for name, data in saved.written(columns).items():
        (folder / name).write_bytes(data)


def lay_saved_texts(folder: Path) -> None:
    lay_saved(folder, "text", [f"t{place}" for place in range(COUNT)])


def lay_saved_images(folder: Path) -> None:
    lay_saved(folder, "image", [{"bytes": as_png(one[None]), "path": WORD} for one in PIXELS])


IMAGE = {"source": "images", "size": [4, 3]}
TEXT = {"length": 5, "person": "patient"}
KINDS: dict[str, tuple[dict[str, Any], Callable[[Path], None]]] = {
    "folders": (IMAGE, lay_folders),
    "listing": ({**IMAGE, "listing": "list.csv", "person": "patient"}, lay_listing),
    "idx": ({"source": "idx", "size": [4, 3]}, lay_idx),
    "lines": ({"source": "json-lines", **TEXT}, lay_lines),
    "saved texts": ({"source": "saved-texts", **TEXT}, lay_saved_texts),
    "saved images": ({"source": "saved-images", "size": [4, 3], "person": "patient"}, lay_saved_images),
}
PICTURES = ("folders", "idx")


class Files:
    """A silo whose own file names a folder of one kind."""

    def __init__(self, kind: str, ward: Ward) -> None:
        said, lay = KINDS[kind]
        self.kind, self.ward, self.whose = kind, ward, {} if kind in PICTURES else {"person": PERSON}
        data = data_from_json(json.dumps({"name": "ward", "labels": LABELS, **said}))
        self.scenario = ward.scenario.model_copy(update={"data": data})
        lay(ward.kit / "own")
        self.law()

    def law(self, name: str = "ward", folder: str = "own", **keys: Any) -> None:
        self.ward.law({name: {"files": folder, **self.whose, **keys}})

    @property
    def records(self) -> Records:
        return Silo("north", self.scenario, "1", "cpu", self.ward.kit, self.ward.kit).records()

    def hand_out(self, folder: Path) -> HandedOut:
        return hand_out(self.ward.kit, self.scenario, folder)

    def handed(self, folder: Path) -> Records:
        return held_out_table(self.scenario.data, TableSource(files=str(folder)))


def places(found: Records) -> list[int]:
    """Return which of the records that were laid these are, by what they hold."""
    if isinstance(found.x, dict):
        texts = [bytes((one[one > 0] - 1).astype(np.uint8)).decode() for one in found.x["tokens"]]
        return sorted(int(one[1:]) for one in texts)
    pixels = np.round((found.x_NF[:, 0] + 1) * 127.5).astype(np.uint8)
    return sorted(int(np.flatnonzero((one == PIXELS).all(axis=(1, 2)))[0]) for one in pixels)


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, ward: Ward) -> Files:
    return Files(request.param, ward)


def held_of(files: Files) -> set[int]:
    return BY_PICTURE if files.kind in PICTURES else BY_ID


def test_what_is_held_out_never_trains_and_all_of_it_alone_is_handed_out(files: Files, tmp_path: Path) -> None:
    assert 0 < len(held_of(files)) < COUNT
    assert places(files.records) == list(range(COUNT))
    with pytest.raises(ConfigError, match=r"\[tables\.ward\] of silo\.toml does not say held_out"):
        files.hand_out(tmp_path / "none")
    files.law(held_out=SHARE)
    assert places(files.records) == sorted(set(range(COUNT)) - held_of(files))
    done = files.hand_out(tmp_path / "handed")
    assert (done.kind, done.keys) == ("files", {})
    handed = files.handed(tmp_path / "handed")
    assert places(handed) == sorted(held_of(files))
    assert sorted(handed.y_N.tolist()) == sorted(place % 2 for place in held_of(files))
    written = [path for path in sorted((tmp_path / "handed").rglob("*")) if path.is_file()]
    everything = b"".join(path.read_bytes() + str(path.relative_to(tmp_path)).encode() for path in written)
    assert WORD.encode() not in everything
    assert not any(one.encode() in everything for one in IDS) or files.kind in PICTURES
    assert stat.S_IMODE((tmp_path / "handed").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "handed").rglob("*") if path.is_file()} == {0o600}


def test_by_another_word_than_was_handed_out_nothing_is_read(files: Files, tmp_path: Path) -> None:
    files.law(held_out=SHARE)
    before = places(files.records)
    files.hand_out(tmp_path / "handed")
    for words in ({}, {"held_out": SHARE / 2}):
        files.law(**words)
        with pytest.raises(ConfigError, match=r"held_out = 0\.4 of 'ward' was handed out, by"):
            _ = files.records
    (files.ward.kit / "own").rename(files.ward.kit / "moved")
    name = "again"  # the same files elsewhere, by another name
    files.scenario = files.scenario.model_copy(update={"data": files.scenario.data.model_copy(update={"name": name})})
    files.law(name, "moved")
    with pytest.raises(ConfigError, match=r"held_out = 0\.4 of 'ward' was handed out, by"):
        _ = files.records
    files.law(name, "moved", held_out=SHARE)
    assert places(files.records) == before


def test_who_withdrew_is_not_handed_out(files: Files, tmp_path: Path) -> None:
    if files.kind in PICTURES:
        with pytest.raises(ConfigError, match="does not say whose a row is"):
            withdraw(files.ward.kit, tmp_path / "ids", None)
        return
    files.law(held_out=SHARE)
    gone = min(BY_ID)
    (tmp_path / "ids").write_text(f"{IDS[gone]}\n")
    assert withdraw(files.ward.kit, tmp_path / "ids", None).handed_out == ("ward",)
    files.hand_out(tmp_path / "handed")
    assert places(files.handed(tmp_path / "handed")) == sorted(BY_ID - {gone})


@pytest.mark.parametrize("kind", ["folders", "lines"])
def test_nothing_is_written_over_and_nothing_is_left_of_what_is_refused(kind: str, ward: Ward, tmp_path: Path) -> None:
    files = Files(kind, ward)
    files.law(held_out=SHARE)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="nothing is written over it"):
        files.hand_out(tmp_path / "mine")
    files.law(held_out=1e-9)
    with pytest.raises(DataError, match="holds no record"):
        files.hand_out(tmp_path / "none")
    for path in sorted((files.ward.kit / "own").rglob("*.*"))[:1]:
        path.write_bytes(b"damaged")
    files.law(held_out=SHARE)
    with pytest.raises(DataError):
        files.hand_out(tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]
    assert not (files.ward.kit / HANDED_OUT).exists()


def test_one_picture_is_held_out_in_every_form_and_under_every_name(ward: Ward, tmp_path: Path) -> None:
    """By what it shows: as another format, another name, in an IDX file, in colour, and under any scenario."""
    files = Files("folders", ward)
    files.law(held_out=SHARE)
    trained = places(files.records)
    own = files.ward.kit / "own"
    for place, path in enumerate(sorted(own.rglob("*.png"))):
        endings = (".bmp", ".tiff", ".png")
        Image.open(path).convert(("RGB", "L", "P")[place % 3]).save(path.with_name(f"{place}-new{endings[place % 3]}"))
        path.unlink()
    assert places(files.records) == trained
    larger = files.scenario.data.model_copy(update={"size": (8, 6), "other_sizes": "resize", "color": "rgb"})
    files.scenario = files.scenario.model_copy(update={"data": larger})
    assert len(files.records) == len(trained)
    own.rename(ward.kit / "pictures")
    as_idx = Files("idx", ward)
    as_idx.law(held_out=SHARE)
    assert places(as_idx.records) == trained


def test_a_law_says_what_becomes_of_pictures(ward: Ward) -> None:
    files = Files("idx", ward)
    files.law(held_out=SHARE)
    (line,) = [one for one in sentences(read_silo_file(ward.kit / "silo.toml")) if "HELD OUT" in one]
    assert (
        "a share of 0.4 of its pictures is HELD OUT, chosen by what each of them holds and not by whose it is" in line
    )
    assert "one person may have some there and others that train" in line


@pytest.mark.parametrize("kind", ["listing", "lines", "saved texts", "saved images"])
def test_where_persons_are_told_apart_they_are_held_out_whole_or_nothing_is_read(kind: str, ward: Ward) -> None:
    files = Files(kind, ward)
    files.whose = {}
    files.law(held_out=SHARE)
    silo = Silo("north", files.scenario, "1", "cpu", ward.kit, ward.kit)
    for look in (silo.check_data, silo.records):
        with pytest.raises(ConfigError, match=r"\[tables\.ward\] says held_out and no person") as said:
            look()
        assert "\n" not in str(said.value)


def test_the_word_on_pictures_is_kept_and_read_back(ward: Ward, tmp_path: Path) -> None:
    files = Files("idx", ward)
    files.law(held_out=SHARE)
    files.hand_out(tmp_path / "handed")
    (kept,) = read_handed_out(ward.kit, opener_from_secret(unlocked(ward.kit).age_secret)).values()
    assert (kept.person, kept.share) == (None, SHARE)
    files.whose = {"person": PERSON}
    files.law(held_out=SHARE)
    with pytest.raises(ConfigError, match=r"by what each picture holds, and by silo\.toml now pictures of that file"):
        _ = files.records
