"""Images in a data set of Hugging Face's that was saved on disk: a folder of `state.json` and Arrow files."""

from __future__ import annotations

from typing import Literal

from fedmodel.kinds.columns import ColumnName
from fedmodel.kinds.pictures import Pictures


class SavedImagesConfig(Pictures):
    """Its rows, a column of which is an image.

    Attributes:
        image: The column of images, whose bytes lie in the data set itself.
        label: The column that is predicted: one of `labels`, by its name where the data set has names for its numbers.
        person: The column that says whose an image is.
    """

    source: Literal["saved-images"]
    image: ColumnName = "image"
    label: ColumnName = "label"
    person: ColumnName | None = None

    @property
    def predicted(self) -> str | None:
        """The label's column."""
        return self.label

    @property
    def described(self) -> str:
        """What they are."""
        return f"images of {self.size[0]}x{self.size[1]} in a saved data set{self.of_features}"

    def why_no_persons(self) -> str | None:
        """Return that no column says whose an image is, where none does."""
        return None if self.person is not None else "it needs data.person, the column that says whose an image is"
