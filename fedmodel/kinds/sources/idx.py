"""Files in the form of MNIST: images as one file of bytes, their labels as another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedmodel.kinds.files import Files
from fedmodel.kinds.pictures import Side
from fedmodel.kinds.shape import DataShape


class IdxConfig(Files):
    """`PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`, or the same with `.gz`; 0 to 255 become -1 to 1.

    Where a folder has files of a prefix `t10k` or `test` beside others, these are the server's.

    Attributes:
        size: Height and width.
    """

    are_pictures = True

    source: Literal["idx"]
    size: Annotated[tuple[Side, Side], Field(strict=False)]

    @property
    def shape(self) -> DataShape:
        """One channel, height and width."""
        return DataShape((1, *self.size), len(self.labels), labels=self.labels)

    def why_no_ids(self) -> str:
        """Return that these files have no place for it."""
        return "IDX files do not say whose an image is"

    @property
    def described(self) -> str:
        """What they are."""
        return f"images of {self.size[0]}x{self.size[1]} in IDX files"
