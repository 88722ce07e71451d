"""What kinds of source that are pictures have in common: one size, grey or colour, a class each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedmodel.kinds.files import Files
from fedmodel.kinds.shape import DataShape

Side = Annotated[int, Field(ge=1, le=10_000)]


class Pictures(Files):
    """PNG, JPEG, BMP or TIFF of eight bits a pixel, whose 0 to 255 become -1 to 1.

    Attributes:
        size: Height and width.
        color: "grey" makes one channel of any image, "rgb" three.
        other_sizes: An image of another size is refused, or resized by itself.
    """

    are_pictures = True

    size: Annotated[tuple[Side, Side], Field(strict=False)]
    color: Literal["grey", "rgb"] = "grey"
    other_sizes: Literal["refuse", "resize"] = "refuse"

    @property
    def shape(self) -> DataShape:
        """Channels, height and width."""
        return DataShape((3 if self.color == "rgb" else 1, *self.size), len(self.labels), labels=self.labels)
