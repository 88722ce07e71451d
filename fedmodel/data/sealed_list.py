"""A list of which a silo keeps one in its kit: one file, sealed to the silo's own age recipient, replaced whole.

It is padded as a cache is, so that every list under 64 KiB has one length.

Guarantee: a list that does not open, is of an unknown version, or is not as it was written raises; it never reads as a
list that is not there. What was there stays until the new one is whole.

Does NOT protect against whoever can write the silo's files: they can take the list away, or put an older one back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedmodel.data.cache import padded
from fedmodel.errors import CryptoError, DataError

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener

Found = TypeVar("Found")


@dataclass(frozen=True)
class SealedList:
    """A kind of list.

    Attributes:
        name: Of the file.
        versions: That are read; the last one is written.
        broken: What is said of a file that is not as it was written: by which command, what follows, what to do.
    """

    name: str
    versions: tuple[int, ...]
    broken: str

    def read(self, kit: Path, opener: Opener, taken: Callable[[Mapping[str, Any]], Found]) -> Found | None:
        """Return what is taken from a kit's list; None where there is no file.

        Args:
            kit: The silo's.
            opener: The silo's own.
            taken: Takes what is wanted from what was written, which has its version; what is not there is an error.

        Raises:
            DataError: When it cannot be read, does not open, or is not as it was written. It has no code of its own:
                what leaves a silo does not tell that there is a list.
        """
        from fedmodel.crypto.sealed import read_sealed  # who reads rows for a model has no list and needs none

        path = kit / self.name
        try:
            document = json.loads(read_sealed(path, opener))
            if document["version"] not in self.versions:
                raise DataError(f"{path}: is of another version of fedmodel; use that one")
            return taken(document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except (CryptoError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{path}: does not open, or is not as {self.broken}") from None

    def write(self, kit: Path, recipient: str, said: Mapping[str, Any]) -> None:
        """Write a kit's list in place of the one that was there.

        Args:
            kit: The silo's.
            recipient: The silo's own, to whom it is sealed.
            said: All that it says but its version. Sensitive.

        Raises:
            OSError: When it cannot be written; the list that was there stays.
        """
        from fedmodel.crypto.sealed import write_sealed

        plain = json.dumps({"version": self.versions[-1], **said}).encode()
        write_sealed(kit / self.name, plain.ljust(padded(len(plain))), (recipient,))
