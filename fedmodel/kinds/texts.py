"""What kinds of source that are texts have in common: each becomes tokens (`fedmodel.kinds.tokens`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedmodel.kinds.columns import RISING, ColumnConfig, ColumnName, Range, rises
from fedmodel.kinds.files import Files
from fedmodel.kinds.shape import (
    CLASSIFICATION,
    MULTI_LABEL,
    NEXT,
    REGRESSION,
    SEQUENCE,
    ArrayShape,
    DataShape,
)
from fedmodel.kinds.tokens import Length, TokenizerConfig, text_inputs, tokens_of

TaskName = Literal["classification", "multi-label", "regression", "next-token", "sequence-labels"]


class Texts(Files):
    """Records of named fields, of which one is a text that becomes arrays `tokens` and `mask`.

    Attributes:
        text: The field that is the text; of sequence labels, a list of its words.
        label: The field that is predicted: one of `labels`, as text or a whole number; a list of some of them; a
            number; or a list with one of them for each word. None of a text whose own next token is.
        labels: The classes, in order, or the labels of which a record or a word has some.
        length: How many tokens of a text are read; without a tokenizer these are bytes.
        person: The field that says whose a record is.
        task: What is learnt.
        target_range: Of a number: its public range, mapped onto [-1, 1], to which a record's is bounded.
        tokenizer: Whose tokens a text becomes; its bytes where none is said.
    """

    text: ColumnName = "text"
    label: ColumnName = "label"
    labels: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=1_000)] = ()
    length: Length
    person: ColumnName | None = None
    # Left out of what is hashed where they are not said: they came later.
    task: TaskName = Field(default=CLASSIFICATION, exclude_if=lambda said: said == CLASSIFICATION)
    target_range: Range | None = Field(default=None, exclude_if=lambda said: said is None)
    tokenizer: TokenizerConfig | None = Field(default=None, exclude_if=lambda said: said is None)

    @model_validator(mode="after")
    def _says_what_is_learnt(self) -> Texts:
        named = self.task in (CLASSIFICATION, MULTI_LABEL, SEQUENCE)
        if named != bool(self.labels) or len(self.labels) == 1:
            raise ValueError(
                f'task = "{self.task}" needs labels, two at least' if named else f'task = "{self.task}" has no labels'
            )
        if (self.task == REGRESSION) != (self.target_range is not None):
            raise ValueError(f'target_range, a public one, is given with task = "{REGRESSION}", and only then')
        if self.target_range is not None and not rises(self.target_range):
            raise ValueError(f"target_range must {RISING}, found {list(self.target_range)}")
        if self.task == NEXT and self.label != type(self).model_fields["label"].default:
            raise ValueError(f'task = "{NEXT}" predicts the text itself; leave label out')
        if self.task == NEXT and self.length < 2:
            raise ValueError(f'task = "{NEXT}" needs a length of two at least')
        return self

    @property
    def shape(self) -> DataShape:
        """Tokens, and which of them stand."""
        inputs, tokens = text_inputs(self.length, self.tokenizer), tokens_of(self.tokenizer)
        if self.task == NEXT:
            target = ArrayShape((self.length,), tokens, ignores=True)
            return DataShape((), tokens, inputs=inputs, target=target, task=self.task)
        if self.task == REGRESSION:
            number = ArrayShape(())
            return DataShape((), 0, inputs=inputs, target=number, task=self.task, target_range=self.target_range)
        count, several = len(self.labels), None
        if self.task == MULTI_LABEL:
            several = ArrayShape((count,), 2)
        if self.task == SEQUENCE:
            several = ArrayShape((self.length,), count, ignores=True)
        return DataShape((), count, inputs=inputs, target=several, labels=self.labels, task=self.task)

    @property
    def predicted(self) -> str | None:
        """The label's field; the text's where that is learnt itself."""
        return self.text if self.task == NEXT else self.label

    def read_by(self) -> tuple[ColumnConfig, ...]:
        """Return the text's own column, where a text has one answer; none where each of its tokens has."""
        if self.task in (NEXT, SEQUENCE):
            return ()
        return (ColumnConfig(name=self.text, type="text", length=self.length, tokenizer=self.tokenizer),)

    def why_no_persons(self) -> str | None:
        """Return that no field says whose a record is, where none does."""
        return None if self.person is not None else "it needs data.person, the field that says whose a record is"
