"""What came of a question: an answer to read, or a code for why there is none.

A silo that refuses, fails or is late counts as a dropout of that exchange, by code. Nothing that a silo sends is ever
logged but a code of the error tree, and what a number of Flower's means.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flwr.app import Message

from fedmodel import wire
from fedmodel.errors import FedmodelError, ProtocolError

logger = logging.getLogger(__name__)


class NoAnswer(Exception):
    """There is no answer to read; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def answered(reply: Message | None) -> Message:
    """Return the reply, or raise if it is late or a refusal.

    Raises:
        NoAnswer: When it is.
    """
    if reply is None:
        raise NoAnswer("late")
    if reply.has_error():
        if (code := wire.refusal_code(reply.error)) == wire.LOST:
            logger.warning("in place of a silo's answer came an error of Flower's: %s", wire.foreign_error(reply.error))
        raise NoAnswer(code)
    return reply


@contextmanager
def excused(into: dict[str, str], silo: str) -> Iterator[None]:
    """Let what is wrong with one silo's answer cost that silo's part and nobody else's: keep why, by code."""
    try:
        yield
    except NoAnswer as missing:
        into[silo] = missing.code
    except FedmodelError as error:
        into[silo] = error.code


def only(messages: list[bytes]) -> bytes:
    """Return the one message of a list.

    Raises:
        ProtocolError: When there is another number of them.
    """
    if len(messages) != 1:
        raise ProtocolError(f"{len(messages)} messages came where one was asked for")
    return messages[0]


def log_dropouts(round_number: int, dropouts: Mapping[str, str]) -> None:
    """Say which silos a round goes on without."""
    for silo, code in dropouts.items():
        logger.warning("round %d: silo %s dropped out: %s", round_number, silo, code)


def reasons(dropouts: Mapping[str, str]) -> str:
    """Return each silo that dropped out, with its code."""
    return ", ".join(f"{silo} ({code})" for silo, code in sorted(dropouts.items()))


def too_few(found: int) -> str:
    """Return the beginning of a sentence on so many silos.

    >>> too_few(1), too_few(2)
    ('1 silo is too few', '2 silos are too few')
    """
    return f"{found} silo{' is' if found == 1 else 's are'} too few"
