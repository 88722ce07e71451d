"""Images from files: PNG, JPEG, BMP or TIFF of one size, each a record of grey or colour from -1 to 1.

What is looked at before a file is opened further is its head: which format it is, how large, of which depth, and
whether it is one picture. So a file that would fill the memory is refused by its head.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.records import onto_unit
from fedmodel.data.taken import Taken, numbered
from fedmodel.data.whose import Whose
from fedmodel.errors import DataError
from fedmodel.kinds.sources.images import ImagesConfig

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF")
_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA")
_MOST_PIXELS: Final = 50_000_000
_MOST_BYTES: Final = 100_000_000


def read_images(config: ImagesConfig, folder: Path, whose: Whose | None) -> Taken:
    """Return the images of a folder, by its listing or by a folder for each label. Sensitive.

    Args:
        config: What they are.
        folder: Where they lie.
        whose: By which column of the listing it is known whose an image is; one that is not to be read is not opened.

    Raises:
        DataError: Which file breaks which rule.
    """
    found = list(_found(config, folder, whose))
    channels, height, width = config.shape.features
    x_N = np.empty((len(found), channels, height, width), dtype=np.float32)
    for place, (path, _, _) in enumerate(found):
        x_N[place] = onto_unit(_pixels(config, path), 0.0, 255.0, config.feature_bound)
    y_N = np.array([config.labels.index(label) for _, label, _ in found], dtype=np.int64)
    persons = None if whose is None else [person for _, _, person in found]
    return Taken(x_N, y_N, numbered(persons, len(found)), str(folder))


def image_files(config: ImagesConfig, folder: Path) -> list[Path]:
    """Return the files that `read_images` reads, and the listing where there is one.

    Raises:
        DataError: As `read_images` does.
    """
    images = [path for path, _, _ in _found(config, folder, None)]
    return images if config.listing is None else [folder / config.listing, *images]


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name."""
    return path.suffix.lower() in _ENDINGS and not path.name.startswith(".")


def _found(config: ImagesConfig, folder: Path, whose: Whose | None) -> Iterator[tuple[Path, str, str]]:
    """Return the files that are read, each with its label and whose it is."""
    if config.listing is None:
        return _by_folder(config, folder)
    return _listed(config, folder, config.listing, whose)


def _by_folder(config: ImagesConfig, folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the files of each label's folder, in the order of labels and of names."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in inside:
        if path.name not in config.labels:
            raise DataError(f"{path}: its name is none of data.labels: {', '.join(config.labels)}")
    for label in config.labels:
        for path in sorted((folder / label).iterdir()) if (folder / label).is_dir() else []:
            if path.name.startswith("."):
                continue
            if not is_image(path) or not path.is_file():
                raise DataError(f"{path}: is no image file; known endings are {', '.join(_ENDINGS)}")
            yield path, label, ""


def check_listing(path: Path, whose: Whose | None) -> list[str]:
    """Return the names of a listing's columns, of which it has each that it needs once, by its first line alone.

    Guarantee: what this says is a function of the first line's bytes and of which columns are needed. What cannot be
    decoded behind that line, or a quotation mark that is not closed there, is not seen.

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
    wanted = _wanted(whose)
    for name in wanted:
        if name not in found:
            raise DataError(f"{path}: has no column {name!r}; it needs {', '.join(wanted)}")
        if found.count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there twice; leave one of them out")
    return found


def _wanted(whose: Whose | None) -> list[str]:
    """Return the columns that a listing needs."""
    return ["file", "label", *([] if whose is None else [whose.column])]


def _listed(config: ImagesConfig, folder: Path, listing: str, whose: Whose | None) -> Iterator[tuple[Path, str, str]]:
    """Yield the files that a listing names, in its order."""
    path, wanted = folder / listing, _wanted(whose)
    names, named = check_listing(path, whose), dict[tuple[int, int], int]()
    with path.open(encoding="utf-8-sig", newline="") as file:
        file.readline()
        for number, line in enumerate(csv.DictReader(file, names), start=1):
            at = f"{path}: row {number}"
            person = ""
            if whose is not None and line[whose.column]:
                normal = whose.of(line[whose.column], at)
                if normal is None:
                    continue
                person = normal
            if any(not line[name] for name in wanted):
                raise DataError(f"{at}: a value is missing")
            if line["label"] not in config.labels:
                raise DataError(f"{at}: its label is none of data.labels: {', '.join(config.labels)}")
            image = folder / line["file"]
            if not image.resolve().is_relative_to(folder.resolve()) or not image.is_file():
                raise DataError(f"{at}: its file is not there; names begin at the listing's folder and stay in it")
            if not is_image(image):  # what is not one by its name is not compared with other budgets' files
                raise DataError(f"{at}: its file is no image by its name; known endings are {', '.join(_ENDINGS)}")
            seen = image.stat()  # of links to one file as of the file itself
            before = named.setdefault((seen.st_dev, seen.st_ino), number)
            if before != number:
                raise DataError(f"{at}: its file was named in row {before}; name each once")
            yield image, line["label"], person


def _pixels(config: ImagesConfig, path: Path) -> NDArray[np.float64]:
    """Return an image's pixels from 0 to 255, shape `(channels, height, width)`."""
    from PIL import Image

    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: is a file of more than {_MOST_BYTES} bytes; no image of such a size is read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they are of is looked at below
            with Image.open(path, formats=_FORMATS) as image:
                _check_head(config, path, image)
                image.load()
                grey = image.convert("L" if config.color == "grey" else "RGB")
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: has more than {_MOST_PIXELS} pixels, and is not opened") from None
    except Exception as error:  # of a damaged file, decoders raise what they like
        raise DataError(f"{path}: is no whole image that is read ({type(error).__name__})") from None
    height, width = config.size
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, dtype=np.float64).reshape(height, width, -1)
    return np.moveaxis(pixels, 2, 0)


def _check_head(config: ImagesConfig, path: Path, image: Image) -> None:
    """Refuse an image by what its head says."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise DataError(f"{path}: has more than {_MOST_PIXELS} pixels, and is not opened")
    if image.mode not in _MODES:
        raise DataError(f"{path}: is of mode {image.mode}, and images of 8 bits a channel are read; convert it")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: holds several pictures; a record is one")
    if config.other_sizes == "refuse" and (height, width) != config.size:
        raise DataError(
            f"{path}: is {height}x{width}, and data.size = {list(config.size)} is declared; resize it, or declare"
            ' other_sizes = "resize"'
        )
