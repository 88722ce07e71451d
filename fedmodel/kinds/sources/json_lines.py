"""Text in files of JSON lines, read byte by byte (`fedmodel.data.tokens`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmodel.kinds.columns import TOKENS, ColumnName
from fedmodel.kinds.files import Files
from fedmodel.kinds.shape import ArrayShape, DataShape


class JsonLinesConfig(Files):
    """All `*.jsonl` of a folder, an object in each line: its text becomes arrays `tokens` and `mask`.

    Attributes:
        text: The field that is the text.
        label: The field that is predicted, text or a whole number, one of `labels`.
        length: How many bytes of a text are read.
        person: The field that says whose a record is.
    """

    source: Literal["json-lines"]
    text: ColumnName = "text"
    label: ColumnName = "label"
    length: int = Field(ge=1, le=65_536)
    person: ColumnName | None = None

    @property
    def shape(self) -> DataShape:
        """Tokens, and which of them stand."""
        inputs = {"tokens": ArrayShape((self.length,), TOKENS), "mask": ArrayShape((self.length,), 2)}
        return DataShape((), len(self.labels), inputs=inputs, labels=self.labels)

    @property
    def predicted(self) -> str | None:
        """The label's field."""
        return self.label

    @property
    def described(self) -> str:
        """What they are."""
        return "texts in JSON lines"

    def why_no_persons(self) -> str | None:
        """Return that no field says whose a record is, where none does."""
        return None if self.person is not None else "it needs data.person, the field that says whose a record is"
