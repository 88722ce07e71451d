"""The last look at a silo's answer before it leaves: it is what the server reads, and holds nothing besides.

What a silo's code makes of a question passes here, whatever made it. A training loss, a count or a time that somebody
adds to an answer, in a field, a record, an array or words of its own, does not leave, and the silo's log says so.

Guarantee, of an answer for which `check_leaves` returns:

| Part                        | What it holds                                                             |
|-----------------------------|---------------------------------------------------------------------------|
| records of the message      | those of answers of the question's kind, and no other                     |
| fields of each              | exactly those that its kind has, each of its type                         |
| the array of an update      | as many words as the question has, or the part of them that a scenario    |
|                             | says is sent in training; finite where they are float32                   |

Does NOT look at values: a figure that is hidden in the words of an update, or in the bytes of a key, is of the right
form. Which values an update has is for the audit (`update_explained`, `noise_shares`). Does NOT see when an answer
leaves, nor what a process sends on another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from flwr.app import Message

from fedmodel.config import TRAINING
from fedmodel.errors import ProtocolError
from fedmodel.wire.messages import (
    ADVERT,
    COMMIT,
    COUNTERSIGN,
    JOIN,
    READY,
    REVEAL,
    SHARE,
    TRAIN,
    job_of,
    read_countersign_reply,
    read_join_reply,
    read_masked_reply,
    read_protocol_reply,
    read_reveal_reply,
    read_train_reply,
    ring_of,
    the_array,
)

_READ: Final[Mapping[str, Callable[[Message], object]]] = {
    READY: read_join_reply,
    JOIN: read_join_reply,
    ADVERT: read_protocol_reply,
    SHARE: read_protocol_reply,
    COMMIT: read_protocol_reply,
    REVEAL: read_reveal_reply,
    COUNTERSIGN: read_countersign_reply,
}


def check_leaves(question: Message, answer: Message, sent_of: Callable[[int], int] = int) -> None:
    """Refuse an answer that holds anything besides what an answer to its question holds.

    Args:
        question: As the silo got it, and read it.
        answer: What is to leave; no refusal.
        sent_of: Returns how many words of an update are sent in a round of training; all of them by default.

    Raises:
        ProtocolError: What is wrong with it.
    """
    kind = question.metadata.message_type
    try:
        if kind == TRAIN:
            _check_update(question, answer, sent_of)
        elif kind in _READ:
            _READ[kind](answer)
        else:
            raise ProtocolError("questions of this kind have no answer")
    except ProtocolError as error:
        raise ProtocolError(f"what was to be answered did not leave, it is no answer to {kind}: {error}") from error


def _check_update(question: Message, answer: Message, sent_of: Callable[[int], int]) -> None:
    """Refuse what is no update of as many words as the question has, or as are sent of them."""
    bits = ring_of(the_array(answer))
    words = len(read_train_reply(answer).update_P if bits is None else read_masked_reply(answer, bits).words_P)
    (asked,) = the_array(question).shape
    due = sent_of(asked) if job_of(question) == TRAINING else asked
    if words != due:
        of = "" if due == asked else f", of which {due} are sent"
        raise ProtocolError(f"it has {words} words where {asked} were asked about{of}")
