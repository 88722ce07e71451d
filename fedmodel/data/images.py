"""Images from files: in a folder for each label, or named by a listing, grey or in colour, from -1 to 1."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.pictures import ENDINGS, is_image, pixels_of, scaled
from fedmodel.data.places import At
from fedmodel.data.reading import Reading
from fedmodel.data.taken import Taken, numbered, persons_of
from fedmodel.data.whose import Whose
from fedmodel.errors import DataError
from fedmodel.kinds.pictures import Pictures
from fedmodel.kinds.sources.images import ImagesConfig


@dataclass(frozen=True)
class Labelled:
    """A picture as it is read. Sensitive.

    Attributes:
        pixels: Shape `(channels, height, width)`.
        label: Its class.
        person: The normal form of whose it is; "" where that is not known.
    """

    pixels: NDArray[np.uint8]
    label: str
    person: str

    def __repr__(self) -> str:
        return "Labelled(...)"  # a repr ends up in logs


def read_images(config: ImagesConfig, folder: Path, reading: Reading) -> Taken:
    """Return the images of a folder, by its listing or by a folder for each label. Sensitive.

    Raises:
        DataError: Which file breaks which rule.
    """
    return taken_of(config, labelled_images(config, folder, reading), reading, folder)


def taken_of(config: Pictures, labelled: Iterator[Labelled], reading: Reading, folder: Path) -> Taken:
    """Return pictures as records. Sensitive."""
    found = list(labelled)
    x_N = np.empty((len(found), *config.pixels), dtype=np.float32)
    for place, one in enumerate(found):
        x_N[place] = scaled(one.pixels, config.feature_bound)
    y_N = np.array([config.labels.index(one.label) for one in found], dtype=np.int64)
    persons = None if reading.whose.column is None else [one.person for one in found]
    return Taken(x_N, y_N, numbered(persons, len(found)), str(folder), persons=persons_of(persons))


def labelled_images(config: ImagesConfig, folder: Path, reading: Reading) -> Iterator[Labelled]:
    """Yield the images that are read; one that is not to be read for whose it is is not opened. Sensitive.

    Raises:
        DataError: Which file breaks which rule.
    """
    for one in _found(config, folder, reading):
        pixels = None
        with reading.record():
            pixels = pixels_of(config, one.path, At(one.path), reading.whose)
        if pixels is not None:
            yield Labelled(pixels, one.label, one.person)


def image_files(config: ImagesConfig, folder: Path) -> list[Path]:
    """Return the files that `read_images` reads, and the listing where there is one.

    Raises:
        DataError: As `read_images` does.
    """
    images = [one.path for one in _found(config, folder, Reading())]
    return images if config.listing is None else [folder / config.listing, *images]


@dataclass(frozen=True)
class _Named:
    """A file that is read, with its label and whose it is."""

    path: Path
    label: str
    person: str


def _found(config: ImagesConfig, folder: Path, reading: Reading) -> list[_Named]:
    """Return the files that are read."""
    if config.listing is None:
        return _by_folder(config, folder, reading)
    return _listed(config, folder, config.listing, reading)


def _by_folder(config: ImagesConfig, folder: Path, reading: Reading) -> list[_Named]:
    """Return the files of each label's folder, in the order of labels and of names."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        with reading.record():
            if path.name not in config.labels:
                raise At(path).refused(f"its name is none of data.labels: {', '.join(config.labels)}")
    for label in config.labels:
        for path in sorted((folder / label).iterdir()) if (folder / label).is_dir() else []:
            if path.name.startswith("."):
                continue
            with reading.record():
                if not is_image(path) or not path.is_file():
                    raise At(path).refused(f"is no image file; known endings are {', '.join(ENDINGS)}")
                found.append(_Named(path, label, ""))
    return found


def check_listing(path: Path, column: str | None) -> list[str]:
    """Return the names of a listing's columns, of which it has each that it needs once, by its first line alone.

    Guarantee: what this says is a function of the first line's bytes and of which columns are needed. What cannot be
    decoded behind that line, or a quotation mark that is not closed there, is not seen.

    Args:
        path: Of the listing.
        column: The one that says whose an image is, where one does.

    Raises:
        DataError: Which rule the line breaks.
        OSError: When the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        line = file.readline()
    if "\ufffd" in line:
        raise DataError(f"{path}: has a header that is not text in UTF-8; save it in that encoding")
    try:
        found = next(csv.reader([line], strict=True), [])
    except csv.Error:  # strict, since a field that is not closed would go on in the lines behind
        raise DataError(f"{path}: has a header that is no line of CSV; close its quotation marks on it") from None
    wanted = _wanted(column)
    for name in wanted:
        if name not in found:
            raise DataError(f"{path}: has no column {name!r}; it needs {', '.join(wanted)}")
        if found.count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there twice; leave one of them out")
    return found


def _wanted(column: str | None) -> list[str]:
    """Return the columns that a listing needs."""
    return ["file", "label", *([] if column is None else [column])]


def listing_rows(path: Path, column: str | None) -> Iterator[tuple[At, dict[str, str]]]:
    """Yield the rows of a listing, each with where it stands. Sensitive.

    Raises:
        DataError: As `check_listing` does.
        OSError, UnicodeError, csv.Error: When it cannot be read behind its first line.
    """
    names = check_listing(path, column)
    with path.open(encoding="utf-8-sig", newline="") as file:
        file.readline()
        for number, line in enumerate(csv.DictReader(file, names), start=1):
            yield At(path, number, "row"), line


def _listed(config: ImagesConfig, folder: Path, listing: str, reading: Reading) -> list[_Named]:
    """Return the files that a listing names, in its order."""
    found, named, whose = list[_Named](), dict[tuple[int, int], int](), reading.whose
    for at, line in listing_rows(folder / listing, whose.column):
        with reading.record():
            person = _person(line, at, whose)
            if person is None:
                continue
            for name in _wanted(whose.column):
                if not line[name]:
                    raise at.refused("a value is missing", name)
            if line["label"] not in config.labels:
                raise at.refused(f"its label is none of data.labels: {', '.join(config.labels)}", "label")
            image = folder / line["file"]
            _check_named(folder, image, at, named)
            found.append(_Named(image, line["label"], person))
    return found


def _person(line: dict[str, str], at: At, whose: Whose) -> str | None:
    """Return whose a row's image is, None where it is not to be read; "" where nothing says so."""
    return whose.of(line[whose.column], at) if whose.column is not None and line[whose.column] else ""


def _check_named(folder: Path, image: Path, at: At, named: dict[tuple[int, int], int]) -> None:
    """Refuse a file that is not there, is no image by its name, or was named before."""
    if not image.resolve().is_relative_to(folder.resolve()) or not image.is_file():
        raise at.refused("its file is not there; names begin at the listing's folder and stay in it", "file")
    if not is_image(image):  # what is not one by its name is not compared with other budgets' files
        raise at.refused(f"its file is no image by its name; known endings are {', '.join(ENDINGS)}", "file")
    seen = image.stat()  # of links to one file as of the file itself
    before = named.setdefault((seen.st_dev, seen.st_ino), at.row or 0)
    if before != at.row:
        raise at.refused(f"its file was named in row {before}; name each once", "file")
