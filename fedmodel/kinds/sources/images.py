"""Image files: a folder for each label, or a list of files and labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedmodel.kinds.columns import ColumnName
from fedmodel.kinds.files import Files
from fedmodel.kinds.shape import DataShape

Side = Annotated[int, Field(ge=1, le=10_000)]


class ImagesConfig(Files):
    """PNG, JPEG, BMP or TIFF of eight bits a pixel, whose 0 to 255 become -1 to 1.

    Attributes:
        size: Height and width.
        color: "grey" makes one channel of any image, "rgb" three.
        other_sizes: An image of another size is refused, or resized by itself.
        listing: A CSV in each folder with the columns `file` and `label`; without it, files lie in a folder for each
            label.
        person: A column of the listing that says whose an image is.
    """

    source: Literal["images"]
    size: Annotated[tuple[Side, Side], Field(strict=False)]
    color: Literal["grey", "rgb"] = "grey"
    other_sizes: Literal["refuse", "resize"] = "refuse"
    listing: str | None = Field(default=None, pattern=r"^[^/\\\x00-\x1f]{1,100}$")
    person: ColumnName | None = None

    @property
    def shape(self) -> DataShape:
        """Channels, height and width."""
        return DataShape((3 if self.color == "rgb" else 1, *self.size), len(self.labels), labels=self.labels)

    @property
    def described(self) -> str:
        """What they are."""
        return f"images of {self.size[0]}x{self.size[1]} in a folder"

    def why_no_ids(self) -> str | None:
        """Return that files by themselves say of nobody whose they are."""
        return "only a listing says whose an image is: data.listing" if self.listing is None else None

    def why_no_persons(self) -> str | None:
        """Return that nothing says whose an image is, where nothing does."""
        ready = self.listing is not None and self.person is not None
        return None if ready else "it needs data.listing, and data.person, its column that says whose an image is"
