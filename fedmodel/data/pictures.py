"""Pictures: PNG, JPEG, BMP or TIFF, from a file or from bytes, each read as whole numbers from 0 to 255.

What is looked at before a picture is opened further is its head: which format it is, how large, of which depth, and
whether it is one picture. So a file that would fill the memory is refused by its head.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.places import At
from fedmodel.data.records import onto_unit
from fedmodel.data.whose import Whose
from fedmodel.errors import DataError
from fedmodel.kinds.pictures import Pictures

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF")
_BEGIN: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ENDINGS: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA")
_MOST_PIXELS: Final = 50_000_000
_MOST_BYTES: Final = 100_000_000


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def pixels_of(config: Pictures, data: Path | bytes, at: At, whose: Whose) -> NDArray[np.uint8] | None:
    """Return a picture's pixels, shape `(channels, height, width)`; None of one that is not to be read. Sensitive.

    Args:
        config: What it is declared to be.
        data: Its file, or what that holds.
        at: Where it stands, for errors.
        whose: Which pictures are read, where a picture decides that by itself.

    Raises:
        DataError: Which rule it breaks, or why its file cannot be read.
    """
    from PIL import Image

    held = data if isinstance(data, bytes) else _read(data, at)
    if len(held) > _MOST_BYTES:
        raise at.refused(f"is a file of more than {_MOST_BYTES} bytes; no image of such a size is read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they are of is looked at below
            with Image.open(io.BytesIO(held), formats=_FORMATS) as image:
                _check_head(config, image, at)
                image.load()
                if whose.looks_at_pictures and not whose.has_picture(digest_of(np.asarray(image.convert("RGB")))):
                    return None
                found = image.convert("L" if config.color == "grey" else "RGB")
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise at.refused(f"has more than {_MOST_PIXELS} pixels, and is not opened") from None
    except Exception as error:  # of a damaged file, decoders raise what they like
        raise at.refused(f"is no whole image that is read: {_why_not_read(held, error)}") from None
    height, width = config.size
    if found.size != (width, height):
        found = found.resize((width, height), Image.Resampling.BILINEAR)
    return np.moveaxis(np.asarray(found, dtype=np.uint8).reshape(height, width, -1), 2, 0)


def _why_not_read(held: bytes, error: Exception) -> str:
    """Say what is wrong with a file that no decoder takes, by its first bytes."""
    if not held:
        return "it is empty"
    if not held.startswith(_BEGIN):
        return f"it begins as none of {', '.join(_FORMATS)} does, whatever its name says"
    if isinstance(error, MemoryError):
        return "it is damaged, or does not fit into this machine's memory"
    return "it is cut short or damaged, or packed in a way that is not read"


def _read(path: Path, at: At) -> bytes:
    """Return what a file holds, or more than any image may: what the system refuses says nothing of the picture."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise at.refused(f"cannot be read: {error.strerror}") from None


def digest_of(pixels_HWC: NDArray[np.uint8]) -> str:
    """Return what tells a picture from others: a digest of its height, width and colours; grey is three alike.

    Args:
        pixels_HWC: Shape `(height, width, 3)`, or `(height, width)` of a grey one. Sensitive.
    """
    if pixels_HWC.ndim == 2:
        pixels_HWC = np.repeat(pixels_HWC[:, :, None], 3, axis=2)
    height, width, _ = pixels_HWC.shape
    return hashlib.sha256(b"%d %d " % (height, width) + pixels_HWC.tobytes()).hexdigest()


def scaled(pixels: NDArray[np.uint8], bound: float) -> NDArray[np.float32]:
    """Return pixels from 0 to 255 mapped onto [-1, 1], within a bound."""
    return onto_unit(pixels.astype(np.float64), 0.0, 255.0, bound)


def as_png(pixels_CHW: NDArray[np.uint8]) -> bytes:
    """Return pixels, shape `(channels, height, width)`, as a PNG that has nothing else in it."""
    from PIL import Image

    pixels_HWC, file = np.ascontiguousarray(np.moveaxis(pixels_CHW, 0, 2)), io.BytesIO()
    Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC).save(file, "PNG")
    return file.getvalue()


def _check_head(config: Pictures, image: Image, at: At) -> None:
    """Refuse an image by what its head says."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise at.refused(f"has more than {_MOST_PIXELS} pixels, and is not opened")
    if image.mode not in _MODES:
        raise at.refused(f"is of mode {image.mode}, and images of 8 bits a channel are read; convert it")
    if getattr(image, "n_frames", 1) > 1:
        raise at.refused("holds several pictures; a record is one")
    if config.other_sizes == "refuse" and (height, width) != config.size:
        raise at.refused(
            f"is {height}x{width}, and data.size = {list(config.size)} is declared; resize it, or declare"
            ' other_sizes = "resize"'
        )
