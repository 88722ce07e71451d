"""Text in files of JSON lines, read byte by byte (`fedmodel.data.tokens`), or by a tokenizer."""

from __future__ import annotations

from typing import Literal

from fedmodel.kinds.texts import Texts


class JsonLinesConfig(Texts):
    """All `*.jsonl` of a folder, an object in each line: its text becomes arrays `tokens` and `mask`."""

    source: Literal["json-lines"]

    @property
    def described(self) -> str:
        """What they are."""
        return "texts in JSON lines"
