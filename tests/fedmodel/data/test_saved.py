"""A data set of Hugging Face's, saved by that very library: read as lines and image files are, and handed on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fedmodel.config import Scenario, TableSource, data_from_json
from fedmodel.data import held_out_records, silo_records
from fedmodel.data.files import check_files, files_records
from fedmodel.data.saved import saved_files, written
from fedmodel.data.tokens import decoded
from fedmodel.errors import DataError
from fedmodel.kinds.shape import IGNORED

WORD = "hidden-word"
TEXTS = {"source": "saved-texts", "name": "notes", "labels": ["home", "ward"], "length": 12}
IMAGES = {"source": "saved-images", "name": "scans", "labels": ["clear", "suspect"], "size": [6, 4]}
NAMES = datasets.ClassLabel(names=["home", "ward"])


def config(said: dict[str, Any], **more: Any) -> Any:
    return data_from_json(json.dumps({**said, **more}))


def save(folder: Path, columns: dict[str, list[Any]], *, shards: int = 1, **features: Any) -> None:
    found = datasets.Dataset.from_dict(columns)
    for name, feature in features.items():
        found = found.cast_column(name, feature)
    found.save_to_disk(folder, num_shards=shards)


def records(said: dict[str, Any], folder: Path, **more: Any) -> Any:
    return files_records(config(said, **more), TableSource(files=str(folder)))


def texts_of(found: Any) -> list[str]:
    return [decoded(one) for one in found.x["tokens"]]


def test_texts_are_read_in_order_and_their_labels_by_name(tmp_path: Path) -> None:
    texts = [f"note {place}" for place in range(7)]
    columns = {"text": texts, "label": [place % 2 for place in range(7)], "other": [WORD] * 7}
    save(tmp_path / "set", columns, shards=3, label=NAMES)
    assert len(saved_files(tmp_path / "set")) == 3
    found = records(TEXTS, tmp_path / "set")
    assert texts_of(found) == texts
    assert found.y_N.tolist() == [0, 1, 0, 1, 0, 1, 0]
    save(tmp_path / "plain", {"text": texts, "label": ["ward"] * 7})
    assert records(TEXTS, tmp_path / "plain").y_N.tolist() == [1] * 7


def test_a_label_without_a_name_is_none(tmp_path: Path) -> None:
    """-1 is what the library writes where there is no label; as a place from the end it would be the last name."""
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())])
    save(tmp_path / "set", {"text": ["a"], "label": [0]}, label=NAMES)
    (path,) = saved_files(tmp_path / "set")
    with pa.OSFile(str(path)) as file:
        metadata = pa.ipc.open_stream(file).schema.metadata
    for label in (-1, 2):
        table = pa.table({"text": ["a"], "label": [label]}, schema=schema.with_metadata(metadata))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(DataError, match=r"row 1: 'label' is none of data\.labels: home, ward"):
            records(TEXTS, tmp_path / "set")


def test_words_with_labels_are_a_list_each(tmp_path: Path) -> None:
    columns = {"text": [["Ann", "is", "in"], ["it"]], "label": [[1, 0, 0], [0]]}
    save(tmp_path / "set", columns, label=datasets.Sequence(datasets.ClassLabel(names=["other", "name"])))
    said = {"task": "sequence-labels", "labels": ["other", "name"]}
    found = records(TEXTS, tmp_path / "set", **said)
    assert texts_of(found) == ["Ann is in", "it"]
    at_words = [[0, 1], [4, 0], [7, 0]]
    wanted = np.full((2, 12), IGNORED)
    for place, label in at_words:
        wanted[0, place] = label
    wanted[1, 0] = 0
    assert found.y_N.tolist() == wanted.tolist()


def test_images_are_the_pixels_that_were_saved(tmp_path: Path) -> None:
    pixels = [np.random.default_rng(place).integers(0, 256, (6, 4), dtype=np.uint8) for place in range(4)]
    columns = {"image": [Image.fromarray(one) for one in pixels], "label": ["suspect", "clear"] * 2}
    save(tmp_path / "set", columns)
    found = records(IMAGES, tmp_path / "set")
    assert found.y_N.tolist() == [1, 0, 1, 0]
    assert np.array_equal(np.round((found.x_NF[:, 0] + 1) * 127.5).astype(np.uint8), np.stack(pixels))
    with pytest.raises(DataError, match=r"row 1: is 6x4, and data\.size = \[5, 4\] is declared"):
        records(IMAGES, tmp_path / "set", size=[5, 4])


def test_what_is_written_is_read_by_the_library_too(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("L", (4, 6), 7).save(image, "PNG")
    columns = {"text": ["a", "b"], "label": ["home", "ward"], "image": [{"bytes": image.getvalue(), "path": None}] * 2}
    for name, data in written(columns).items():
        (tmp_path / name).write_bytes(data)
    again = datasets.load_from_disk(tmp_path)
    assert again["text"][:] == ["a", "b"]
    assert texts_of(records(TEXTS, tmp_path)) == ["a", "b"]


def test_a_simulation_reads_a_folder_of_sets(tiny: Scenario, tmp_path: Path) -> None:
    texts = [f"note {place}" for place in range(60)]
    split = {"train": datasets.Dataset.from_dict({"text": texts, "label": [place % 2 for place in range(60)]})}
    datasets.DatasetDict(split).cast_column("label", NAMES).save_to_disk(tmp_path)
    document = tiny.model_dump(mode="json", exclude_none=True)
    document["data"] = {**TEXTS, "folder": str(tmp_path), "held_out": 0.2}
    scenario = Scenario.model_validate(document)
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in tiny.federation.silos)]
    assert sorted(text for part in parts for text in texts_of(part)) == sorted(texts)


def state(folder: Path, **said: Any) -> None:
    document = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(document | said))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no state", r"state\.json: cannot be read: No such file"),
        ("no json", r"state\.json: does not say of which files a saved data set consists"),
        ("outside", r"state\.json: names a file that is none of the folder"),
        ("no arrow", r"state\.json: names a file that is none of the folder, or does not end in \.arrow"),
        ("twice", r"state\.json: names a file twice"),
        ("indices", r"keeps the order of rows apart; save the set once more after flatten_indices"),
        ("missing", r"data-00000-of-00001\.arrow: is not there, and state\.json names it"),
        ("cut", r"data-00000-of-00001\.arrow: is no whole file of a saved data set"),
        ("column", r"data-00000-of-00001\.arrow: has no column 'text', or two"),
        ("type", r"data-00000-of-00001\.arrow: row 1: 'text' is a list, and text is needed"),
        ("gap", r"data-00000-of-00001\.arrow: row 2: 'text' is a NoneType, and text is needed"),
    ],
)
def test_a_set_that_is_not_whole_is_named_by_its_file(name: str, why: str, tmp_path: Path) -> None:
    save(tmp_path, {"text": ["a", WORD], "label": ["home", "ward"]})
    (path,) = saved_files(tmp_path)
    if name in ("column", "type", "gap"):
        column = {"column": ("words", ["a", WORD]), "type": ("text", [["a"], [WORD]]), "gap": ("text", [WORD, None])}
        key, values = column[name]
        path.write_bytes(written({key: values, "label": ["home", "ward"]})[path.name])
    named = {"filename": path.name}
    harm = {
        "no state": lambda: (tmp_path / "state.json").unlink(),
        "no json": lambda: (tmp_path / "state.json").write_text("[]"),
        "outside": lambda: state(tmp_path, _data_files=[{"filename": f"../{tmp_path.name}/{path.name}"}]),
        "no arrow": lambda: state(tmp_path, _data_files=[{"filename": "dataset_info.json"}]),
        "twice": lambda: state(tmp_path, _data_files=[named, named]),
        "indices": lambda: state(tmp_path, _indices_data_files=[named]),
        "missing": path.unlink,
        "cut": lambda: path.write_bytes(path.read_bytes()[:-200]),
    }
    harm.get(name, lambda: None)()
    with pytest.raises(DataError, match=why) as refused:
        records(TEXTS, tmp_path)
    assert WORD not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_server_is_told_hangs_on_names_of_files_and_columns(tmp_path: Path) -> None:
    save(tmp_path, {"text": ["a"], "label": ["none of them"]})
    source = TableSource(files=str(tmp_path))
    check_files(config(TEXTS), source)
    for lacks in ({"text": "words"}, {"label": "class"}, {"person": "patient"}):
        with pytest.raises(DataError, match="has no column"):
            check_files(config(TEXTS, **lacks), source)
    (path,) = saved_files(tmp_path)
    path.write_bytes(written({"text": [], "label": []})[path.name])
    check_files(config(TEXTS), source)


def test_an_offset_that_leads_out_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """Arrow trusts offsets: without a look at them a damaged file would be read beyond its end."""
    save(tmp_path, {"text": ["abcd", "efgh"], "label": ["home", "ward"]})
    (path,) = saved_files(tmp_path)
    data = path.read_bytes()
    offsets = np.array([0, 4, 8], dtype=np.int32).tobytes()
    assert data.count(offsets) >= 1
    path.write_bytes(data.replace(offsets, np.array([0, 4, 2**30], dtype=np.int32).tobytes(), 1))
    with pytest.raises(DataError, match="is no whole file of a saved data set"):
        records(TEXTS, tmp_path)
