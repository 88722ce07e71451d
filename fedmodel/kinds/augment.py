"""The section `data.augment`: how a record's copy may differ from the record each time that it is drawn for training.

What it promises, and who applies it, is `fedmodel.learning.augmenting`'s to say. What is declared here is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Section
from fedmodel.kinds.shape import ArrayShape, DataShape

_OF_IMAGES: Final = ("flip", "crop", "rotate")
_WAYS: Final = (*_OF_IMAGES, "shift", "noise")


class AugmentConfig(Section):
    """Changes of a record of real numbers, each drawn anew for each record of each lot.

    The last two axes of an image are its height and its width, and the last axis of a series is time. What would come
    from outside of either is the nearest value at its edge.

    Attributes:
        array: Which array of a record, where it is made of several.
        flip: Left and right, or top and bottom, or each of both, are swapped in half of the copies.
        crop: Most pixels by which an image is moved, up or down and to a side: a crop after as much padding.
        rotate: Most degrees by which an image is turned, either way.
        shift: Most steps by which a series is moved, either way.
        noise: Standard deviation of what is added to each number, after scaling.
        views: How many copies of a record are trained on in a lot that it was drawn for, as one record.
    """

    array: str | None = Field(default=None, min_length=1, max_length=100)
    flip: Literal["horizontal", "vertical", "both"] | None = None
    crop: int = Field(default=0, ge=0, le=10_000)
    rotate: float = Field(default=0.0, ge=0, le=180)
    shift: int = Field(default=0, ge=0, le=1_000_000)
    noise: float = Field(default=0.0, ge=0, le=1_000)
    # Left out of what is hashed where it is not said: scenarios from before it keep the hash that silos admit.
    views: int = Field(default=1, ge=1, le=256, exclude_if=lambda views: views == 1)

    @model_validator(mode="after")
    def _says_something(self) -> AugmentConfig:
        if not any(getattr(self, way) for way in _WAYS):
            raise ValueError(f"says none of {', '.join(_WAYS)}; say one, or leave the section out")
        return self

    @property
    def described(self) -> str:
        """What it does, in a few words for a report."""
        said = ", ".join(f"{way} = {getattr(self, way)}" for way in _WAYS if getattr(self, way))
        kept = f", {self.views} of a record at a time, which count as one" if self.views > 1 else ""
        return f"trained on as copies of which each differs by chance from its record ({said}){kept}"

    def of(self, shape: DataShape) -> ArrayShape:
        """Return the array that it changes.

        Raises:
            ConfigError: When records have no such array, or one that cannot be changed as is said.
        """
        arrays = shape.arrays
        if isinstance(arrays, Mapping):
            if self.array is None or self.array not in arrays:
                raise ConfigError(f"data.augment.array is to be one of {', '.join(arrays)}, found {self.array!r}")
            found = arrays[self.array]
        elif self.array is not None:
            raise ConfigError("data.augment.array names one array of several, and records are one; leave it out")
        else:
            found = arrays
        if found.below is not None:
            raise ConfigError("data.augment changes real numbers, and these records are whole ones, as codes are")
        images = [way for way in _OF_IMAGES if getattr(self, way)]
        if images and len(found.size) not in (2, 3):
            raise ConfigError(
                f"data.augment.{images[0]} is of images, of shape [channels, height, width], and a record is of shape"
                f" {list(found.size)}; leave it out"
            )
        if self.shift and len(found.size) not in (1, 2):
            raise ConfigError(
                "data.augment.shift is of series, of shape [steps] or [channels, steps], and a record is of shape"
                f" {list(found.size)}; leave it out"
            )
        for way, axes in (("crop", found.size[-2:]), ("shift", found.size[-1:])):
            if getattr(self, way) >= min(axes, default=1) and getattr(self, way):
                raise ConfigError(
                    f"data.augment.{way} = {getattr(self, way)} could move all of a record of shape {list(found.size)}"
                    " out of itself; say less"
                )
        return found
