"""What kinds of source that are pictures have in common: one size, grey or colour, a class each."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedmodel.kinds.files import Files
from fedmodel.kinds.scattering import scattered_shape
from fedmodel.kinds.shape import DataShape

Side = Annotated[int, Field(ge=1, le=10_000)]


class Framed(Files):
    """Pictures of one size, whose 0 to 255 become -1 to 1, or features of each picture by itself.

    Attributes:
        size: Height and width.
        features: What a model is given: pixels, or `fedmodel.data.scattering`'s features of them, decorrelated or not.
    """

    are_pictures = True

    size: Annotated[tuple[Side, Side], Field(strict=False)]
    # Left out of what is hashed where it is not said: it came later.
    features: Literal["pixels", "scattering", "decorrelated-scattering"] = Field(
        default="pixels", exclude_if=lambda said: said == "pixels"
    )

    @model_validator(mode="after")
    def _has_features(self) -> Framed:
        """Refuse a size of which there are no such features, and copies that would differ in features alone."""
        _ = self.shape
        if self.scattering_of is not None and self.augment is not None:
            raise ValueError(
                f'augment changes what a model is given, which of features = "{self.features}" is no image; leave one'
                " out"
            )
        return self

    @property
    @abstractmethod
    def channels(self) -> int:
        """Colours of a pixel: one or three."""

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Shape of a picture: channels, height and width."""
        return (self.channels, *self.size)

    @property
    def shape(self) -> DataShape:
        """Channels, height and width, of pixels or of features."""
        size = self.pixels if self.scattering_of is None else scattered_shape(self.scattering_of)
        return DataShape(size, len(self.labels), labels=self.labels)

    @property
    def scattering_of(self) -> tuple[int, int, int] | None:
        """Shape of the picture whose scattering features a model is given; None where it is given the pixels."""
        return None if self.features == "pixels" else self.pixels

    @property
    def are_decorrelated(self) -> bool:
        """Whether its features are decorrelated."""
        return self.features == "decorrelated-scattering"

    @property
    def of_features(self) -> str:
        """What a report says of them, behind what they are of."""
        if self.scattering_of is None:
            return ""
        return f", by {'decorrelated ' * self.are_decorrelated}scattering features of each image alone"


class Pictures(Framed):
    """PNG, JPEG, BMP or TIFF of eight bits a pixel.

    Attributes:
        color: "grey" makes one channel of any image, "rgb" three.
        other_sizes: An image of another size is refused, or resized by itself.
    """

    color: Literal["grey", "rgb"] = "grey"
    other_sizes: Literal["refuse", "resize"] = "refuse"

    @property
    def channels(self) -> int:
        """Colours of a pixel."""
        return 3 if self.color == "rgb" else 1
