"""What kinds of source that are files in a folder have in common: each silo's own, or in a simulation dealt out.

A deployed silo's own file says where its folder lies, as `files` of `[tables.NAME]`; it never looks at `folder` here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field, model_validator

from fedmodel.kinds.columns import ColumnName
from fedmodel.kinds.partitions import PartitionConfig
from fedmodel.kinds.partitions.dirichlet import Dirichlet
from fedmodel.kinds.section import DataName
from fedmodel.kinds.source import Source

HELD_OUT: Final = "held-out"
TRAIN: Final = "train"
Labels = Annotated[tuple[ColumnName, ...], Field(strict=False, min_length=2, max_length=1_000)]


class Files(Source):
    """A folder of files: in a simulation FOLDER is laid out in one of these ways, the first that it is.

    | In FOLDER                     | Whose they are       |
    |-------------------------------|----------------------|
    | a folder for each silo        | each silo's own      |
    | `train/`                      | dealt out            |
    | the files themselves          | dealt out            |

    `held-out/` is the server's, beside the first two; where it is not there, `held_out` says a share.

    Attributes:
        are_pictures: Whether each record is a picture, which tells it from others where no id does.
        name: What the data set is called in budgets, ledgers and `[tables]`.
        folder: Where a simulation's lies; a relative path begins at the working folder.
        labels: The classes, in order, as the files call them.
        held_out: Share set aside for the server's evaluation.
        partition: How records are dealt, where they are.
    """

    is_dealt = True
    is_own = True
    are_pictures: ClassVar[bool] = False

    name: DataName
    folder: str | None = Field(default=None, min_length=1)
    labels: Labels
    held_out: float | None = Field(default=None, gt=0, lt=1)
    partition: PartitionConfig = Dirichlet()

    @model_validator(mode="after")
    def _labels_differ(self) -> Files:
        """Refuse a label that is named twice."""
        for label in self.labels:
            if self.labels.count(label) > 1:
                raise ValueError(f"label {label!r} is named twice")
        return self

    @property
    def data_set(self) -> str:
        """What the data set is called: by its own name."""
        return self.name

    def check_silos(self, silos: tuple[str, ...]) -> None:
        """Refuse a silo that is called as a folder which means something else."""
        for name in (HELD_OUT, TRAIN):
            if name in silos:
                raise ValueError(f"a silo cannot be called {name!r}: that is the name of a folder of the data set")

    def why_no_ids(self) -> str | None:
        """Return why no record says whose it is, whatever a silo's own file says; None where one may."""
        return None

    def under(self, folder: Path) -> Files:
        """Return the same, with the folder beginning at another."""
        return self if self.folder is None else self.model_copy(update={"folder": str(folder / self.folder)})
