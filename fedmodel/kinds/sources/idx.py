"""Files in the form of MNIST: images as one file of bytes, their labels as another."""

from __future__ import annotations

from typing import Literal

from fedmodel.kinds.pictures import Framed


class IdxConfig(Framed):
    """`PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`, or the same with `.gz`.

    Where a folder has files of a prefix `t10k` or `test` beside others, these are the server's.
    """

    source: Literal["idx"]

    @property
    def channels(self) -> int:
        """They are grey."""
        return 1

    def why_no_ids(self) -> str:
        """Return that these files have no place for it."""
        return "IDX files do not say whose an image is"

    @property
    def described(self) -> str:
        """What they are."""
        return f"images of {self.size[0]}x{self.size[1]} in IDX files{self.of_features}"
