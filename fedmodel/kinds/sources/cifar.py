"""Files in the form of CIFAR's binary version: label and pixels of each image, one after another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedmodel.kinds.pictures import Framed, Side


class CifarConfig(Framed):
    """All files `*.bin` of a folder. Where some are called `test...` beside others, these are the server's.

    Attributes:
        size: Height and width.
        label_bytes: Before an image's pixels: one, as in CIFAR-10, or two, as in CIFAR-100, of which the second is its
            label.
    """

    source: Literal["cifar"]
    size: Annotated[tuple[Side, Side], Field(strict=False)] = (32, 32)
    label_bytes: Literal[1, 2] = 1

    @property
    def channels(self) -> int:
        """Red, green and blue."""
        return 3

    def why_no_ids(self) -> str:
        """Return that these files have no place for it."""
        return "CIFAR files do not say whose an image is"

    @property
    def described(self) -> str:
        """What they are."""
        return f"images of {self.size[0]}x{self.size[1]} in CIFAR files{self.of_features}"
