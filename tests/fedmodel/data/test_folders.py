"""Files in a folder: each kind read, each layout dealt, and what breaks a rule named by its file."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from fedmodel.config import Scenario, TableSource
from fedmodel.data import check_deployed, files, held_out_records, saved, silo_records, unread
from fedmodel.data.files import files_records
from fedmodel.data.pictures import as_png
from fedmodel.data.scattering import scattered
from fedmodel.data.tokens import decoded
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.pictures import Framed
from fedmodel.kinds.shape import ArrayShape
from scenarios.simulation.simulate import check_scenario

SILOS = ("north", "south", "west")
RNG = np.random.default_rng(4)
WORD = "hidden-word"


def scenario_of(tiny: Scenario, source: str, folder: Path, **said: Any) -> Scenario:
    document = tiny.model_dump(mode="json", exclude_none=True)
    data = {"source": source, "name": "files", "folder": str(folder), "labels": ["clear", "suspect"], **said}
    document["data"] = {key: value for key, value in data.items() if value is not None}
    return Scenario.model_validate(document)


def images(folder: Path, count: int = 8, size: tuple[int, int] = (6, 4), mode: str = "L") -> list[bytes]:
    """Write images of two labels, and return their pixels in the order in which they are read."""
    told = []
    for label in ("clear", "suspect"):
        (folder / label).mkdir(parents=True)
        for place in range(count // 2):
            pixels = RNG.integers(0, 256, (*size, 3) if mode == "RGB" else size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{place}.png")
            told.append(pixels.tobytes())
    return told


def back(x: np.ndarray[Any, Any]) -> bytes:
    """Return the bytes that an image had."""
    return np.moveaxis(np.round((x + 1) * 127.5).astype(np.uint8), 0, 2).tobytes()


def test_images_by_label_folder_are_each_silos_own(tiny: Scenario, tmp_path: Path) -> None:
    told = {party: images(tmp_path / party) for party in (*SILOS, "held-out")}
    scenario = scenario_of(tiny, "images", tmp_path, size=[6, 4])
    assert scenario.data.shape.features == (1, 6, 4)
    for party in (*SILOS, "held-out"):
        found = held_out_records(scenario) if party == "held-out" else silo_records(scenario, party)
        assert [back(one) for one in found.x_NF] == told[party]
        assert found.y_N.tolist() == [0] * 4 + [1] * 4
        assert np.abs(found.x_NF).max() <= 1.0
    (tmp_path / "north" / "clear" / "0.png").unlink()
    assert len(silo_records(scenario, "north")) == 7  # what is read follows the folder


@pytest.mark.parametrize("apart", [True, False])
def test_images_of_one_folder_are_dealt(apart: bool, tiny: Scenario, tmp_path: Path) -> None:
    train = tmp_path / "train" if apart else tmp_path
    told = images(train, 40, mode="RGB")
    held = images(tmp_path / "held-out", 8, mode="RGB") if apart else []
    more = {} if apart else {"held_out": 0.25}
    scenario = scenario_of(tiny, "images", tmp_path, size=[6, 4], color="rgb", **more)
    silos = [back(one) for silo in SILOS for one in silo_records(scenario, silo).x_NF]
    apart_ones = [back(one) for one in held_out_records(scenario).x_NF]
    assert sorted(silos + apart_ones) == sorted(told + held)
    assert len(apart_ones) == (8 if apart else 10)


def test_a_listing_names_files_labels_and_whose_they_are(tiny: Scenario, tmp_path: Path) -> None:
    told = images(tmp_path, 40)
    names = [f"{label}/{place}.png" for label in ("clear", "suspect") for place in range(20)]
    lines = [f"{name},{label},p{place % 20}" for place, (name, label) in enumerate(
        zip(names, ["suspect"] * 20 + ["clear"] * 20, strict=True))]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(["file,label,patient", *lines, ""]))
    scenario = scenario_of(tiny, "images", tmp_path, size=[6, 4], listing="list.csv", person="patient", held_out=0.2)
    assert scenario.data.why_no_persons() is None
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in SILOS)]
    persons = [set(part.person_N.tolist()) for part in parts]
    assert sum(map(len, persons)) == len(set.union(*persons)) == 20
    by_pixels = dict(zip(told, [1] * 20 + [0] * 20, strict=True))
    assert all(by_pixels[back(x)] == y for part in parts for x, y in zip(part.x_NF, part.y_N, strict=True))


def test_other_sizes_are_refused_or_resized_each_by_itself(tiny: Scenario, tmp_path: Path) -> None:
    for party in (*SILOS, "held-out"):
        images(tmp_path / party)
    Image.new("L", (8, 12), 255).save(tmp_path / "south" / "clear" / "0.png")
    with pytest.raises(DataError, match=r"south/clear/0\.png: is 12x8, and data\.size = \[6, 4\] is declared"):
        silo_records(scenario_of(tiny, "images", tmp_path, size=[6, 4]), "south")
    resized = silo_records(scenario_of(tiny, "images", tmp_path, size=[6, 4], other_sizes="resize"), "south")
    assert np.array_equal(resized.x_NF[0], np.ones((1, 6, 4), dtype=np.float32))


NO_IMAGE = "is no whole image that is read: it begins as none of PNG, JPEG, BMP, TIFF does, whatever its name says"


def tiff_of_two(path: Path) -> None:
    page = Image.new("L", (4, 6))
    page.save(path, save_all=True, append_images=[page])


def huge(path: Path) -> None:
    """Write a PNG whose head says that it is far too large."""
    Image.new("L", (4, 6)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 8_000, 8_000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "harm", "why"),
    [
        ("a.png", lambda path: path.write_bytes(WORD.encode()), NO_IMAGE),
        ("a.png", lambda path: path.write_bytes(b""), "is no whole image that is read: it is empty"),
        ("a.tif", tiff_of_two, "holds several pictures"),
        ("a.png", lambda path: Image.new("I;16", (4, 6)).save(path), "is of mode I;16, and images of 8 bits"),
        ("a.png", huge, "has more than 50000000 pixels, and is not opened"),
        ("a.gif", lambda path: Image.new("L", (4, 6)).save(path), "is no image file; known endings are"),
        ("a.png", lambda path: Image.new("L", (4, 6)).save(path, "GIF"), NO_IMAGE),
        ("a.png", lambda path: path.mkdir(), "is no image file"),
        ("a.png", lambda path: path.symlink_to("/proc/self/mem"), "a.png: cannot be read: Input/output error"),
        ("a.png", lambda path: (Image.new("L", (400, 600)).save(path), path.write_bytes(path.read_bytes()[:200])),
         "is no whole image that is read: it is cut short or damaged"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_image_of_a_record_is_named(
    name: str, harm: Any, why: str, tiny: Scenario, tmp_path: Path
) -> None:
    for party in (*SILOS, "held-out"):
        images(tmp_path / party)
    harm(tmp_path / "south" / "clear" / name)
    with pytest.raises(DataError, match=why) as refused:
        silo_records(scenario_of(tiny, "images", tmp_path, size=[6, 4], other_sizes="resize"), "south")
    assert str(tmp_path / "south" / "clear" / name) in str(refused.value)
    assert WORD not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_picture_that_memory_has_no_room_for_is_said_to_be_one(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    for party in (*SILOS, "held-out"):
        images(tmp_path / party)
    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(DataError, match=r"read: it is damaged, or does not fit into this machine's memory$"):
        silo_records(scenario_of(tiny, "images", tmp_path, size=[6, 4]), "south")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("file,finding\n", "list.csv: has no column 'label'; it needs file, label"),
        ("file,label\nclear/0.png,\n", "list.csv: row 1: a value is missing"),
        (f"file,label\nclear/0.png,clear\nclear/1.png,{WORD}\n", "row 2: its label is none of data.labels"),
        (f"file,label\n{WORD}.png,clear\n", "row 1: its file is not there"),
        ("file,label\n../south/clear/0.png,clear\n", "row 1: its file is not there; .* and stay in it"),
    ],
)
def test_a_listing_that_breaks_a_rule_is_named_by_its_row(lines: str, why: str, tiny: Scenario, tmp_path: Path) -> None:
    for party in (*SILOS, "held-out"):
        images(tmp_path / party)
        (tmp_path / party / "list.csv").write_text("file,label\nclear/0.png,clear\nsuspect/0.png,suspect\n")
    (tmp_path / "north" / "list.csv").write_text(lines)
    with pytest.raises(DataError, match=why) as refused:
        silo_records(scenario_of(tiny, "images", tmp_path, size=[6, 4], listing="list.csv"), "north")
    assert WORD not in str(refused.value)


@pytest.mark.parametrize("which", ["", "decorrelated"])
def test_features_of_an_image_are_the_same_in_a_simulation_and_at_a_silo(
    tiny: Scenario, tmp_path: Path, which: str
) -> None:
    for party in (*SILOS, "held-out"):
        images(tmp_path / party, size=(8, 12))
    pixels = scenario_of(tiny, "images", tmp_path, size=[8, 12])
    said = "-".join(filter(None, [which, "scattering"]))
    scenario = scenario_of(tiny, "images", tmp_path, size=[8, 12], features=said, feature_bound=2.0)
    assert scenario.data.shape.features == (84, 2, 3)
    assert f"by {f'{which} scattering'.strip()} features of each image alone" in scenario.data.described
    read = {"held-out": (held_out_records(scenario), held_out_records(pixels))}
    read |= {silo: (silo_records(scenario, silo), silo_records(pixels, silo)) for silo in SILOS}
    assert isinstance(scenario.data, Framed)
    for party, (found, plain) in read.items():
        features = scattered(plain.x_NF, decorrelated=bool(which))
        assert np.abs(features).max() > 2.0
        assert np.array_equal(found.x_NF, np.clip(features, -2.0, 2.0))
        own = files_records(scenario.data, TableSource(files=str(tmp_path / party)))
        assert np.array_equal(own.x_NF, found.x_NF)
        assert own.y_N.tolist() == found.y_N.tolist()


def test_features_that_were_kept_are_used_while_they_are_what_they_were(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "own", size=(8, 8))
    source, keys = TableSource(files=str(tmp_path / "own")), []
    for version in (b"one", b"another"):
        monkeypatch.setattr(files, "VERSION", version)
        for said in ("pixels", "scattering", "decorrelated-scattering"):
            config = scenario_of(tiny, "images", tmp_path, size=[8, 8], features=said).data
            keys.append(files._key(config, source, None))  # type: ignore[arg-type]
    assert keys[0] == keys[3]
    assert len({*keys[:3], *keys[4:]}) == 5


def test_a_scenario_that_says_nothing_of_features_is_written_as_it_was(tiny: Scenario, tmp_path: Path) -> None:
    plain = scenario_of(tiny, "images", tmp_path, size=[8, 8]).data
    assert "features" not in plain.model_dump_json()
    assert plain == scenario_of(tiny, "images", tmp_path, size=[8, 8], features="pixels").data
    with pytest.raises(ValidationError, match="needs a height and width that 4 divides, from 8 on; found 6x8"):
        scenario_of(tiny, "images", tmp_path, size=[6, 8], features="scattering")
    for said in ("scattering", "decorrelated-scattering"):
        with pytest.raises(ValidationError, match=f'which of features = "{said}" is no image; leave one out'):
            scenario_of(tiny, "images", tmp_path, size=[8, 8], features=said, augment={"flip": "horizontal"})


def idx(folder: Path, prefix: str, count: int, *, zipped: bool = False) -> tuple[Any, Any]:
    """Write a pair of IDX files."""
    folder.mkdir(exist_ok=True)
    x, y = RNG.integers(0, 256, (count, 6, 4), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 2
    for name, data in (("images-idx3", x), ("labels-idx1", y)):
        head = bytes([0, 0, 8, data.ndim]) + struct.pack(f">{data.ndim}I", *data.shape)
        plain = head + data.tobytes()
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(plain) if zipped else plain)
    return x, y


def test_files_in_the_form_of_mnist_are_dealt_and_its_test_files_are_the_servers(
    tiny: Scenario, tmp_path: Path
) -> None:
    x, y = idx(tmp_path, "train", 60, zipped=True)
    x_test, y_test = idx(tmp_path, "t10k", 10)
    scenario = scenario_of(tiny, "idx", tmp_path, size=[6, 4])
    parts = [silo_records(scenario, silo) for silo in SILOS]
    found = {back(one): label for part in parts for one, label in zip(part.x_NF, part.y_N, strict=True)}
    assert found == {one.tobytes(): label for one, label in zip(x, y, strict=True)}
    held = held_out_records(scenario)
    assert [back(one) for one in held.x_NF] == [one.tobytes() for one in x_test]
    assert held.y_N.tolist() == y_test.tolist()


def test_each_silo_may_have_a_pair_of_idx_files(tiny: Scenario, tmp_path: Path) -> None:
    told = {party: idx(tmp_path / party, "own", 12) for party in SILOS}
    scenario = scenario_of(tiny, "idx", tmp_path, size=[6, 4], held_out=0.25)
    for silo in SILOS:
        part = silo_records(scenario, silo)
        assert len(part) == 9
        assert {back(one) for one in part.x_NF} <= {one.tobytes() for one in told[silo][0]}


@pytest.mark.parametrize(
    ("name", "harm", "why"),
    [
        ("own-images-idx3-ubyte", lambda data: b"\0\0\x0d" + data[3:], "does not begin as an IDX file"),
        ("own-images-idx3-ubyte", lambda data: data[:-1], "is shorter than its head declares"),
        ("own-images-idx3-ubyte", lambda data: data + b"x", "is longer than its head declares"),
        ("own-images-idx3-ubyte", lambda data: data[:4] + b"\xff" * 12, "declares more than"),
        ("own-labels-idx1-ubyte", lambda data: data[:8] + bytes([2]) + data[9:], "record 0: its label is none from 0"),
        (
            "own-labels-idx1-ubyte",
            lambda data: data[:4] + struct.pack(">I", 11) + data[8:-1],
            "another number of images",
        ),
    ],
)
def test_an_idx_file_that_breaks_a_rule_is_named(
    name: str, harm: Any, why: str, tiny: Scenario, tmp_path: Path
) -> None:
    for party in SILOS:
        idx(tmp_path / party, "own", 12)
    path = tmp_path / "south" / name
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=why) as refused:
        silo_records(scenario_of(tiny, "idx", tmp_path, size=[6, 4], held_out=0.25), "south")
    assert str(tmp_path / "south") in str(refused.value)
    path.rename(path.with_name("x"))
    with pytest.raises(DataError, match=r"neither of|has no file named PREFIX"):
        silo_records(scenario_of(tiny, "idx", tmp_path, size=[6, 4], held_out=0.25), "south")


def test_a_cut_gzip_file_and_another_size_are_refused(tiny: Scenario, tmp_path: Path) -> None:
    idx(tmp_path, "train", 60, zipped=True)
    with pytest.raises(DataError, match=r"its images are 6x4, and data\.size = \[4, 6\]"):
        silo_records(scenario_of(tiny, "idx", tmp_path, size=[4, 6], held_out=0.25), "south")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is cut short, or damaged"):
        silo_records(scenario_of(tiny, "idx", tmp_path, size=[6, 4], held_out=0.25), "south")


def lines(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    told = [
        {
            "text": f"note {first + place}",
            "label": ("clear", "suspect")[place % 2],
            "who": place // 2,
            "more": [],
        }
        for place in range(count)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, told)) + "\n\n")


def owned(folder: Path, source: str, whose: list[Any]) -> None:
    """Write a data set of which each record says whose it is, by a value of any type."""
    labels = [("clear", "suspect")[place % 2] for place in range(len(whose))]
    folder.mkdir(parents=True)
    pixels = RNG.integers(0, 256, (len(whose), 1, 6, 4), dtype=np.uint8)
    match source:
        case "json-lines":
            told = [{"text": "a", "label": label, "who": who} for label, who in zip(labels, whose, strict=True)]
            (folder / "a.jsonl").write_text("\n".join(map(json.dumps, told)))
        case "images":
            for place, one in enumerate(pixels):
                (folder / f"{place}.png").write_bytes(as_png(one))
            listed = [
                f"{place}.png,{label},{who}" for place, (label, who) in enumerate(zip(labels, whose, strict=True))
            ]
            (folder / "list.csv").write_text("\n".join(["file,label,who", *listed, ""]))
        case _:
            images_of = [{"bytes": as_png(one), "path": None} for one in pixels]
            kept = {"text": ["a"] * len(whose)} if source == "saved-texts" else {"image": images_of}
            for name, data in saved.written({**kept, "label": labels, "who": whose}).items():
                (folder / name).write_bytes(data)


def owned_scenario(tiny: Scenario, source: str, folder: Path, unit: str = "person") -> Scenario:
    """A claim for persons, or for records, over such a data set."""
    more: dict[str, Any] = {"length": 8} if source in ("json-lines", "saved-texts") else {"size": [6, 4]}
    more |= {"listing": "list.csv"} if source == "images" else {}
    document = scenario_of(tiny, source, folder, person="who", **more).model_dump(mode="json", exclude_none=True)
    document["privacy"] |= {"unit": unit} | ({"max_records": 3} if unit == "person" else {})
    return Scenario.model_validate(document)


OWNED = ("json-lines", "images", "saved-texts", "saved-images")
ON_BOTH_SIDES = r"held-out: a person with records here has some that train too; "


@pytest.mark.parametrize("source", OWNED)
def test_nobody_of_one_folder_trains_and_is_held_out_where_a_claim_is_for_persons(
    tiny: Scenario, tmp_path: Path, source: str
) -> None:
    def said(folder: Path, first: int, unit: str) -> Scenario:
        owned(folder / "train", source, [place // 2 for place in range(60)])
        owned(folder / "held-out", source, [first + place // 2 for place in range(12)])
        return owned_scenario(tiny, source, folder, unit)

    for read in (held_out_records, lambda scenario: silo_records(scenario, "north")):
        with pytest.raises(DataError, match=ON_BOTH_SIDES):
            read(said(tmp_path / read.__name__, 29, "person"))
    assert len(held_out_records(said(tmp_path / "records", 29, "record"))) == 12
    assert len(held_out_records(said(tmp_path / "apart", 30, "person"))) == 12


def test_no_silo_is_in_exact_figures_where_a_claim_is_for_all_that_it_has(tiny: Scenario, tmp_path: Path) -> None:
    for silo in SILOS:
        images(tmp_path / silo, 20)
    scenario = scenario_of(tiny, "images", tmp_path, size=[6, 4], held_out=0.2)
    document = scenario.model_dump(mode="json", exclude_none=True)
    document["privacy"] |= {"unit": "client", "max_records": 20}
    with pytest.raises(DataError, match=r"held_out takes a share of each silo's own records; .* a folder held-out/"):
        held_out_records(Scenario.model_validate(document))
    assert len(held_out_records(scenario)) == 12


def test_ids_of_which_one_begins_as_the_other_are_two_persons(tiny: Scenario, tmp_path: Path) -> None:
    owned(tmp_path / "train", "json-lines", [f"v{place // 2}" for place in range(60)])
    owned(tmp_path / "held-out", "json-lines", [f"v{place // 2}.0" for place in range(12)])
    assert len(held_out_records(owned_scenario(tiny, "json-lines", tmp_path))) == 12


@pytest.mark.parametrize("source", OWNED)
@pytest.mark.parametrize(("one", "other"), [(7, "7"), ("7", 7), (7, " 7"), (" 7", 7), ("7", "7 ")])
def test_another_spelling_of_a_persons_id_hides_nobody(
    tiny: Scenario, tmp_path: Path, source: str, one: object, other: object
) -> None:
    many = range(100, 129)
    owned(tmp_path / "files" / "train", source, [one, one, *(type(one)(who) for who in many for _ in range(2))])
    owned(tmp_path / "files" / "held-out", source, [other, *(type(other)(who) for who in range(200, 205))])
    with pytest.raises(DataError, match=ON_BOTH_SIDES):
        held_out_records(owned_scenario(tiny, source, tmp_path / "files"))


@pytest.mark.parametrize("source", OWNED)
@pytest.mark.parametrize("other", [7.0, "7.0"])
def test_an_id_that_went_through_floating_point_is_refused_before_it_is_compared(
    tiny: Scenario, tmp_path: Path, source: str, other: object
) -> None:
    owned(tmp_path / "files" / "train", source, [7, 7, *(who for who in range(100, 129) for _ in range(2))])
    owned(tmp_path / "files" / "held-out", source, [other, *(type(other)(who) for who in range(200, 205))])
    with pytest.raises(DataError, match=r"is a float, and text is needed|declare form = \"digits\"") as refused:
        held_out_records(owned_scenario(tiny, source, tmp_path / "files"))
    assert "held-out" in str(refused.value)
    assert "7.0" not in str(refused.value)


def test_json_lines_become_tokens_and_a_mask(tiny: Scenario, tmp_path: Path) -> None:
    lines(tmp_path, 60)
    scenario = scenario_of(tiny, "json-lines", tmp_path, length=8, person="who", held_out=0.2)
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in SILOS)]
    texts = [decoded(one) for part in parts if isinstance(part.x, dict) for one in part.x["tokens"]]
    assert sorted(texts) == sorted(f"note {place}" for place in range(60))
    persons = [set(part.person_N.tolist()) for part in parts]
    assert sum(map(len, persons)) == len(set.union(*persons)) == 30
    assert scenario.data.shape.inputs == {"tokens": ArrayShape((8,), 257), "mask": ArrayShape((8,), 2)}
    for part in parts:
        assert isinstance(part.x, dict)
        assert part.x["mask"].sum(axis=1).tolist() == [len(decoded(one)) for one in part.x["tokens"]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (WORD, "line 3: is no JSON"),
        ('"text"', "line 3: is a str, and an object is needed"),
        ('{"label": "clear"}', "line 3: has no field 'text'"),
        ('{"text": 3, "label": "clear"}', "line 3: 'text' is a int, and text is needed"),
        (f'{{"text": "x", "label": "{WORD}"}}', "line 3: 'label' is none of data.labels: clear, suspect"),
        ('{"text": "x", "label": true}', "line 3: 'label' is a bool, and text is needed"),
        ('{"text": "\\ud800", "label": "clear"}', "line 3: 'text' holds half a character"),
    ],
)
def test_a_line_that_breaks_a_rule_is_named_by_its_number(line: str, why: str, tiny: Scenario, tmp_path: Path) -> None:
    lines(tmp_path, 60)
    path = tmp_path / "a.jsonl"
    told = path.read_text().splitlines()
    path.write_text("\n".join([*told[:2], line, *told[2:]]))
    with pytest.raises(DataError, match=why) as refused:
        silo_records(scenario_of(tiny, "json-lines", tmp_path, length=8, held_out=0.2), "north")
    assert WORD not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_folder_that_is_laid_out_in_no_way_is_refused(tiny: Scenario, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        silo_records(scenario_of(tiny, "json-lines", tmp_path / "none", length=8, held_out=0.2), "north")
    lines(tmp_path / "north", 20)
    with pytest.raises(DataError, match="has a folder for silo 'north' and none for 'south'"):
        silo_records(scenario_of(tiny, "json-lines", tmp_path, length=8, held_out=0.2), "north")
    lines(tmp_path / "south", 20)
    lines(tmp_path / "west", 20)
    with pytest.raises(ConfigError, match=r"has no part for the server; give held-out/ or data\.held_out"):
        silo_records(scenario_of(tiny, "json-lines", tmp_path, length=8), "north")
    lines(tmp_path / "held-out", 20)
    with pytest.raises(ConfigError, match=r"has a part for the server, and data\.held_out says a share"):
        silo_records(scenario_of(tiny, "json-lines", tmp_path, length=8, held_out=0.2), "north")
    (tmp_path / "west" / "a.jsonl").unlink()
    with pytest.raises(
        DataError,
        match=r"west: holds no record \(found: nothing\); files that end in \.jsonl, in the folder itself, are read$",
    ):
        silo_records(scenario_of(tiny, "json-lines", tmp_path, length=8), "north")


def test_folders_that_no_silo_is_called_by_are_said_once_and_stray_files_are_not(
    tiny: Scenario, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A hospital that the scenario forgot would go missing unnoticed."""
    folder = tmp_path / "scans"
    for party in (*SILOS, "held-out"):
        images(folder / party, 24)
    for stray in (".DS_Store", "README", "tokenizer.json"):
        (folder / stray).write_text("")
    for hidden in (".cache", "__MACOSX"):
        images(folder / hidden)
    scenario = scenario_of(tiny, "images", folder, size=[6, 4])
    check_scenario(scenario)
    assert caplog.messages == []
    for name in ("east", "train"):
        images(folder / name)
    check_scenario(scenario)
    told = (
        f"{folder}: beside the silos' folders lies what federation.silos does not name, and nothing of it is read:"
        " {}; name it there if it is to train"
    )
    assert caplog.messages == [told.format("east/, train/")]
    caplog.clear()
    document = scenario.model_dump(mode="json", exclude_none=True)
    document["federation"] |= {"silos": ["north", "west"], "min_silos": 2}
    fewer = Scenario.model_validate(document)  # as of a run that is to be compared
    check_scenario(fewer)
    assert caplog.messages == [told.format("east/, south/, train/")]
    caplog.clear()
    check_scenario(fewer, deployed=True)  # nobody here looks into any folder
    assert caplog.messages == []


def test_folders_beside_one_that_is_dealt_out_are_no_silos(tiny: Scenario, tmp_path: Path) -> None:
    for party in ("train", "held-out", "other"):
        images(tmp_path / "scans" / party, 60)
    assert unread(scenario_of(tiny, "images", tmp_path / "scans", size=[6, 4])) is None


def test_a_tokenizers_folder_is_none_of_a_silos(tiny: Scenario, tmp_path: Path) -> None:
    for party in (*SILOS, "held-out", "words"):
        (tmp_path / party).mkdir()
    said = {"sha256": "0" * 64, "vocabulary": 30, "file": "words/tokenizer.json"}
    assert unread(scenario_of(tiny, "json-lines", tmp_path, length=8, tokenizer=said)) is None
    said["file"] = "tokenizer.json"
    found = unread(scenario_of(tiny, "json-lines", tmp_path, length=8, tokenizer=said))
    assert "nothing of it is read: words/; " in str(found)


@pytest.mark.parametrize("share", [None, 0.2])
def test_held_out_beside_the_files_themselves_is_refused(share: float | None, tiny: Scenario, tmp_path: Path) -> None:
    lines(folder := tmp_path / "notes", 60)
    lines(folder / "held-out", 20)
    with pytest.raises(DataError) as refused:
        held_out_records(scenario_of(tiny, "json-lines", folder, length=8, held_out=share))
    assert str(refused.value) == (
        f"{folder}: has held-out/ and neither train/ nor a folder of a silo (found: a.jsonl, held-out/), so that"
        " held-out/ would not be read; put what is dealt out into train/, or call the silos' folders as"
        " federation.silos does"
    )


@pytest.mark.parametrize("share", [None, 0.2])
def test_a_folder_without_a_record_is_said_to_be_one(share: float | None, tiny: Scenario, tmp_path: Path) -> None:
    (folder := tmp_path / "notes").mkdir()
    with pytest.raises(DataError) as refused:
        held_out_records(scenario_of(tiny, "json-lines", folder, length=8, held_out=share))
    told = "holds no record (found: nothing); files that end in .jsonl, in the folder itself, are read"
    assert str(refused.value) == f"{folder}: {told}"


def test_a_missing_second_pair_of_idx_files_is_said(tiny: Scenario, tmp_path: Path) -> None:
    idx(folder := tmp_path / "mnist", "train", 60, zipped=True)
    with pytest.raises(ConfigError) as refused:
        held_out_records(scenario_of(tiny, "idx", folder, size=[6, 4]))
    assert str(refused.value) == (
        f"{folder}: has no part for the server, neither held-out/ nor a second pair, whose PREFIX is t10k or test"
        " (found: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz); give held-out/ or data.held_out, and not"
        " both"
    )


def test_a_deployed_silo_says_where_its_files_lie_and_no_silo_is_called_as_a_part(
    tiny: Scenario, tmp_path: Path
) -> None:
    scenario = scenario_of(tiny, "idx", tmp_path, size=[6, 4])
    law: Any = type("Law", (), {"name": "north", "tables": {}})
    with pytest.raises(ConfigError, match=r"data set 'files' lies; add \[tables\.files\] with files, a folder"):
        check_deployed(scenario, law, tmp_path)
    assert check_scenario(scenario, deployed=True) == 25  # nobody here looks into any folder
    without = scenario.model_copy(update={"data": scenario.data.model_copy(update={"folder": None})})
    with pytest.raises(ConfigError, match=r"data\.folder is missing: a simulation reads"):
        silo_records(without, "north")
    document = scenario.model_dump(mode="json", exclude_none=True)
    document["federation"]["silos"] = ["train", "south", "west"]
    with pytest.raises(ValueError, match="a silo cannot be called 'train'"):
        Scenario.model_validate(document)


@pytest.mark.parametrize("label", ["..", "../other", "/etc", "a/b", "."])
def test_a_label_leads_out_of_no_folder(label: str, tiny: Scenario, tmp_path: Path) -> None:
    """A scenario comes from the server, and does not say which of a silo's files are read."""
    with pytest.raises(ValueError, match="is the name of no folder; without a listing, each label names one"):
        scenario_of(tiny, "images", tmp_path, size=[6, 4], labels=["clear", label])
    scenario_of(tiny, "images", tmp_path, size=[6, 4], labels=["clear", label], listing="list.csv")
