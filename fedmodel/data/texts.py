"""Records with a text, as tokens and what is learnt of it: a class, labels, a number, the text's own next token.

What a record becomes is a function of that record and of what is declared; one text is one record, however long it is.

| Learnt            | Its field                     | Target                                                      |
|-------------------|-------------------------------|-------------------------------------------------------------|
| `classification`  | one of `labels`               | its place                                                   |
| `multi-label`     | a list of some of them        | 0 or 1 for each                                             |
| `regression`      | a number                      | the range mapped onto [-1, 1], bounded to that              |
| `next-token`      | the text itself               | at each token the one that comes next                       |
| `sequence-labels` | one of them for each word of  | the label's place at the first token of each word; other    |
|                   | a text that is a list         | tokens count for nothing, as words behind `length` do       |
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.fields import Told, number_of, text_of, texts_of
from fedmodel.data.reading import Reading
from fedmodel.data.records import onto_unit
from fedmodel.data.taken import Taken, numbered, persons_of
from fedmodel.data.tokens import coded, coded_words, inputs_of, next_tokens
from fedmodel.kinds.shape import IGNORED, MULTI_LABEL, NEXT, REGRESSION, SEQUENCE
from fedmodel.kinds.texts import Texts


def taken_of(config: Texts, told: Iterable[Told], reading: Reading, folder: Path) -> Taken:
    """Return records of named fields as tokens and targets. Sensitive.

    Args:
        config: What they are.
        told: The records that are read.
        reading: Where the tokenizer lies, and whether records that break a rule are noted.
        folder: Where they lie, for errors.

    Raises:
        ConfigError: When the tokenizer is not there, or is another.
        DataError: Which record breaks which rule; never what stands there.
    """
    texts, targets, persons = list[Any](), list[Any](), list[str]()
    for one in told:
        with reading.record():
            text, target = words_or_text(config, one), target_of(config, one)
            if config.task == SEQUENCE and len(text) != len(target):
                rule = f"{config.label!r} has not as many labels as {config.text!r} has words"
                raise one.at.refused(rule, config.label)
            texts.append(text)
            targets.append(target)
            persons.append(one.person)
    if config.task == SEQUENCE:
        code_NT, word_NT = coded_words(texts, config.length, config.tokenizer, reading.tokenizer)
    else:
        code_NT, word_NT = coded(texts, config.length, config.tokenizer, reading.tokenizer), None
    x = inputs_of(code_NT, config.tokenizer)
    whose = None if reading.whose.column is None else persons
    if config.task == NEXT:
        y_N = next_tokens(x["tokens"], x["mask"])
    else:
        y_N = _targets(config, targets) if word_NT is None else _at_words(targets, word_NT)
    return Taken(x, y_N, numbered(whose, len(texts)), str(folder), persons=persons_of(whose))


def words_or_text(config: Texts, told: Told) -> str | list[str]:
    """Return a record's text, or the words of one whose words have labels."""
    if config.task == SEQUENCE:
        return texts_of(told.fields, config.text, told.at, "a list of words is needed", numbers=False)
    return text_of(told.fields, config.text, told.at, numbers=False)


def target_of(config: Texts, told: Told) -> Any:
    """Return what a record is to be predicted as: a class, a number, or a 0 or 1, or a class, for each of several."""
    if config.task == NEXT:
        return None
    if config.task == REGRESSION:
        return number_of(told.fields, config.label, told.at)
    said, at = _labels_said(config, told), told.at
    if any(label not in config.labels for label in said):
        raise at.refused(f"{config.label!r} is none of data.labels: {', '.join(config.labels)}", config.label)
    if config.task == MULTI_LABEL:
        if len(set(said)) < len(said):
            raise at.refused(f"{config.label!r} names a label twice", config.label)
        return [int(label in said) for label in config.labels]
    places = [config.labels.index(label) for label in said]
    return places if config.task == SEQUENCE else places[0]


def _labels_said(config: Texts, told: Told) -> list[str]:
    """Return the labels of a record: one, or as many as there are."""
    if config.task not in (MULTI_LABEL, SEQUENCE):
        return [text_of(told.fields, config.label, told.at)]
    what = "one for each word" if config.task == SEQUENCE else "empty for none"
    return texts_of(told.fields, config.label, told.at, f"a list of labels is needed, {what}")


def _targets(config: Texts, targets: list[Any]) -> NDArray[Any]:
    """Return targets as an array, numbers mapped onto [-1, 1] and bounded to it."""
    if config.target_range is not None:
        low, high = config.target_range
        return onto_unit(np.array(targets, dtype=np.float64), low, high, 1.0)
    return np.array(targets, dtype=np.int64).reshape(len(targets), *config.shape.targets.size)


def _at_words(targets: list[list[int]], word_NT: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at the first token of each word its label, and `IGNORED` elsewhere."""
    y_NT = np.full_like(word_NT, IGNORED)
    for place, labels in enumerate(targets):
        begins_T = word_NT[place] >= 0
        y_NT[place, begins_T] = np.array(labels, dtype=np.int64)[word_NT[place, begins_T]]
    return y_NT
