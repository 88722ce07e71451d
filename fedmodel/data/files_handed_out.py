"""The part of a silo's own files that it holds out, as files of the same kind for the server to read.

What is written is what the scenario declares, and nothing else of a record: its pixels as a model is given them, in a
file of its own without whatever else the silo's had in it; of texts the declared fields. Files have numbers for names,
and ids are numbers. So nothing is handed over but what the server measures on, and in which order it was.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedmodel.config import TableSource
from fedmodel.data import cifar, idx, images, json_lines, saved
from fedmodel.data.fields import Told
from fedmodel.data.files import guarded, reading_of, whose_of
from fedmodel.data.images import Labelled
from fedmodel.data.pictures import as_png
from fedmodel.data.reading import Reading
from fedmodel.data.withdrawn import Withdrawn
from fedmodel.kinds.files import Files
from fedmodel.kinds.shape import NEXT
from fedmodel.kinds.sources.cifar import CifarConfig
from fedmodel.kinds.sources.idx import IdxConfig
from fedmodel.kinds.sources.images import ImagesConfig
from fedmodel.kinds.sources.json_lines import JsonLinesConfig
from fedmodel.kinds.sources.saved_images import SavedImagesConfig
from fedmodel.kinds.sources.saved_texts import SavedTextsConfig
from fedmodel.kinds.texts import Texts

_NAME: Final = "held-out"


def held_out_files(config: Files, source: TableSource, withdrawn: Withdrawn | None) -> Iterator[tuple[str, bytes]]:
    """Yield the files that are handed out, each with its place in the folder that they make. Sensitive.

    Args:
        config: Declares the silo's own files.
        source: Where they lie, with absolute paths, and which share is held out.
        withdrawn: Persons whose records are not handed out.

    Raises:
        ConfigError: As `fedmodel.data.files.files_records` does.
        DataError: As it does.
    """
    folder = Path(source.files or "")
    reading = replace(reading_of(config, source), whose=whose_of(config, source, withdrawn, held_out=True))
    made = iter(_WRITERS[type(config)](config, folder, reading))
    while (one := guarded(folder, lambda: next(made, None))) is not None:
        yield one


@dataclass
class _Numbers:
    """Numbers in place of ids, in the order in which each comes first."""

    known: dict[str, str] = field(default_factory=dict)

    def of(self, person: str) -> str:
        """Return a person's number."""
        return self.known.setdefault(person, str(len(self.known) + 1))


def _images(config: ImagesConfig, folder: Path, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yield pictures in a folder for each label, or with a listing where the scenario has one."""
    rows, numbers = list[list[str]](), _Numbers()
    for place, one in enumerate(images.labelled_images(config, folder, reading), start=1):
        name = f"{place:06d}.png"
        rows.append([name, one.label, *([] if config.person is None else [numbers.of(one.person)])])
        yield (f"{one.label}/{name}" if config.listing is None else name), as_png(one.pixels)
    if config.listing is not None:
        text = io.StringIO()
        header = ["file", "label", *([] if config.person is None else [config.person])]
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        yield config.listing, text.getvalue().encode()


def _idx(config: IdxConfig, folder: Path, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yield one pair of files."""
    pixels_NHW, y_N = idx.labelled_pixels(config, folder, reading)
    yield f"{_NAME}{idx.IMAGES}", idx.written(pixels_NHW)
    yield f"{_NAME}{idx.LABELS}", idx.written(y_N.astype(np.uint8))


def _cifar(config: CifarConfig, folder: Path, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yield one file."""
    pixels, y_N = cifar.labelled_pixels(config, folder, reading)
    yield f"{_NAME}.bin", cifar.written(pixels, y_N, config.label_bytes)


def _lines(config: JsonLinesConfig, folder: Path, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yield one file of lines."""
    told = _declared(config, json_lines.lines_told(folder, reading))
    lines = [json.dumps(one, ensure_ascii=False) for one in told]
    yield f"{_NAME}.jsonl", "".join(f"{one}\n" for one in lines).encode()


def _saved_texts(config: SavedTextsConfig, folder: Path, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yield a saved set of the declared columns."""
    told = list(_declared(config, saved.rows_told(saved.text_columns(config), folder, reading)))
    names = [*saved.text_columns(config), *([] if config.person is None else [config.person])]
    yield from saved.written({name: [one[name] for one in told] for name in names}).items()


def _saved_images(config: SavedImagesConfig, folder: Path, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yield a saved set of pictures."""
    found, numbers = list[Labelled](saved.labelled_rows(config, folder, reading)), _Numbers()
    columns: dict[str, list[Any]] = {
        config.image: [{"bytes": as_png(one.pixels), "path": None} for one in found],
        config.label: [one.label for one in found],
    }
    if config.person is not None:
        columns[config.person] = [numbers.of(one.person) for one in found]
    yield from saved.written(columns).items()


def _declared(config: Texts, told: Iterator[Told]) -> Iterator[dict[str, Any]]:
    """Yield of each record the fields that are declared, with a number in place of an id."""
    numbers = _Numbers()
    for one in told:
        names = [config.text] if config.task == NEXT else [config.text, config.label]
        found = {name: one.fields[name] for name in names if name in one.fields}
        yield found if config.person is None else {**found, config.person: numbers.of(one.person)}


_WRITERS: Final[Mapping[type[Files], Callable[[Any, Path, Reading], Iterator[tuple[str, bytes]]]]] = {
    ImagesConfig: _images,
    IdxConfig: _idx,
    CifarConfig: _cifar,
    JsonLinesConfig: _lines,
    SavedTextsConfig: _saved_texts,
    SavedImagesConfig: _saved_images,
}
