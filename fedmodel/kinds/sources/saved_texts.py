"""Text in a data set of Hugging Face's that was saved on disk: a folder of `state.json` and Arrow files."""

from __future__ import annotations

from typing import Literal

from fedmodel.kinds.texts import Texts


class SavedTextsConfig(Texts):
    """Its rows, a column of which is a text that becomes arrays `tokens` and `mask`."""

    source: Literal["saved-texts"]

    @property
    def described(self) -> str:
        """What they are."""
        return "texts in a saved data set"
