"""Which key, in which file, settles what was found in a table, and which declared choice a value may stand for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

# By words of the rule as a run says it: the first that is in it.
_RENAME: Final = "write the column's name in the source as the scenario does, or have the scenario's changed"
_KEYS: Final = (
    ("its own name stands among", "take the second header out of the file"),
    ("not declared by the scenario", 'leave_out{law} (--fix writes it), or data.other_columns = "ignore"'),
    ("differs in case or outer space", _RENAME),
    ("other characters of Unicode", _RENAME),
    ("is there twice", "give each column of the source a name of its own"),
    ("is missing; it must be there", "add the column to the source under this name, or the scenario leaves it out"),
    ("declare separator", "separator{law} (--fix writes it)"),
    ("declare its encoding", "encoding{law} (--fix writes it)"),
    ("declare encoding", "encoding{law} (--fix writes it)"),
    ("word for a missing value", "missing_values{law} (--fix writes it), or leave it empty"),
    ("decimal = ", "decimal{law} (--fix writes it)"),
    ("mean yes and no", 'yes and no{law} (--fix writes usual ones), or type = "category"; of a label, labels'),
    ("none of the declared categories", 'mend it, or categories, or unknown = "drop" or "other"'),
    (
        "none of the declared labels",
        'mend the spelling, or data.labels, or data.unknown_label = "drop"; if the source has codes of its own,'
        " translate all of them, since one of them may mean another class here",
    ),
    ("outside its declared limits", "mend the record, or limits of the column in the scenario"),
    ("whose a record is, is missing", "leave such records out of the source"),
    ('declare form = "digits"', 'person with form = "digits"{law}, or write the ids whole'),
    ("as many fields in every line", "mend these lines: a separator within a field needs quotation marks around it"),
    ("(form = ", "person = {{column = ..., form = ...}}{law}, or mend the ids"),
    ("a value is missing; leave such records", "leave such records out of the source"),
    ("a value is missing", 'missing = "drop" or "fill" of the column in the scenario, or leave such records out'),
    ("not a whole number", 'mend the value, or type = "float" of the column'),
    ("of type", "type of the column in the scenario, or convert the column"),
)  # fmt: skip


def settled_by(rule: str, table: str) -> str:
    """Return what settles a rule that is broken; what is said of a column is a key of it in the scenario.

    >>> settled_by("its header has no comma but semicolons; if they separate, declare separator = ...", "ward")
    'separator under [tables.ward] in silo.toml (--fix writes it)'
    """
    law = f" under [tables.{table}] in silo.toml"
    for words, settled in _KEYS:
        if words in rule:
            return settled.format(law=law)
    return rule.partition("; ")[2] or "mend the source"


def looks_like(values: Sequence[str], choices: Sequence[str]) -> str:
    """Return which declared choices some values may be in another spelling, as the end of a sentence.

    >>> looks_like(["Ward ", "x"], ["home", "ward"])
    '; in another spelling, some may be ward'
    """
    plain = {_bare(choice): choice for choice in choices}
    found = dict.fromkeys(plain[bare] for value in values if (bare := _bare(value)) in plain)
    return f"; in another spelling, some may be {', '.join(found)}" if found else ""


def _bare(text: str) -> str:
    """Return the letters and digits of a text, without case or accents."""
    parts = unicodedata.normalize("NFKD", text).casefold()
    return "".join(one for one in parts if one.isalnum())
