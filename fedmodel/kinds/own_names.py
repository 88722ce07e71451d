"""How a scenario names code of a user's own: `package.module:function`; what is no such name is refused on reading.

That a name is well formed says nothing of what it leads to: `fedmodel.kinds.own_code` finds it, where that is let in.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

_WORDS: Final = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"


def _names_code(value: str) -> str:
    """Refuse what does not name a module and something in it."""
    if not re.fullmatch(f"{_WORDS}:{_WORDS}", value, re.ASCII):
        raise ValueError(f'{value!r} names no code; write "package.module:function", as in "model:net" of model.py')
    return value


def names_own_or_one_on_board(value: str) -> str:
    """Refuse what names neither code, as "package.module:function", nor anything on board, as "cross-entropy"."""
    if ":" in value:
        return _names_code(value)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.@-]{0,39}", value):
        raise ValueError(f'{value!r} is no name of what is on board, nor of code, as "package.module:function"')
    return value


UseName = Annotated[str, Field(max_length=200), AfterValidator(_names_code)]
"""How a scenario names code: a module, a colon, and a function or a class in it."""
