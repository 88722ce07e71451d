"""Image files: a folder for each label, or a list of files and labels."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field, model_validator

from fedmodel.kinds.columns import ColumnName
from fedmodel.kinds.pictures import Pictures


class ImagesConfig(Pictures):
    """The image files of a folder.

    Attributes:
        listing: A CSV in each folder with the columns `file` and `label`; without it, files lie in a folder for each
            label.
        person: A column of the listing that says whose an image is.
    """

    source: Literal["images"]
    listing: str | None = Field(default=None, pattern=r"^[^/\\\x00-\x1f]{1,100}$")
    person: ColumnName | None = None

    @model_validator(mode="after")
    def _labels_are_folders(self) -> ImagesConfig:
        """Refuse a label that would lead out of the folder: no scenario says which of a silo's files are read."""
        for label in self.labels if self.listing is None else ():
            if label == ".." or PurePath(label).name != label:
                raise ValueError(f"label {label!r} is the name of no folder; without a listing, each label names one")
        return self

    @property
    def described(self) -> str:
        """What they are."""
        return f"images of {self.size[0]}x{self.size[1]} in a folder{self.of_features}"

    def why_no_ids(self) -> str | None:
        """Return that files by themselves say of nobody whose they are."""
        return "only a listing says whose an image is: data.listing" if self.listing is None else None

    def why_no_persons(self) -> str | None:
        """Return why nothing says whose an image is, where nothing does."""
        ready = self.listing is not None and self.person is not None
        return None if ready else "it needs data.listing, and data.person, its column that says whose an image is"
