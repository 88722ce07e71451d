"""The sentences of a page and of a draft DPIA, by key: one file for each language, `en.toml` the first.

Nothing of a page that a person reads stands in code or in a template: they name a key and the figures that go into it.
What the signed document itself says in sentences is quoted as it stands there, in English, whatever the page's
language.

Guarantee: what is filled into a sentence is escaped, whoever wrote it, unless it is markup of this package. A key that
a catalogue lacks, and a figure that a sentence needs and is not given, raise.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from markupsafe import Markup

from scenarios.runs import words

DEFAULT: Final = "en"
_LANGUAGE: Final = re.compile(r"[a-z]{2}")
_MOST_NAMED: Final = 4


@dataclass(frozen=True)
class Catalogue:
    """All sentences, in one language.

    Attributes:
        texts: By "section.key"; of a count, one for one thing and one for several; of months, twelve.
    """

    texts: Mapping[str, str | Sequence[str]]

    @property
    def language(self) -> str:
        """The language's code, as HTML has it."""
        return self._text("front.lang")

    def say(self, key: str, /, **values: object) -> Markup:
        """Return a sentence as markup, with what is filled in escaped."""
        return Markup(self._text(key)).format(**values)  # noqa: S704 - a file of this package

    def plain(self, key: str, /, **values: object) -> str:
        """Return a sentence as text, for a plot or a file that is not HTML."""
        return Markup(self._text(key)).striptags().format(**values)  # noqa: S704 - likewise

    def has(self, key: str) -> bool:
        """Return whether there is such a sentence."""
        return key in self.texts

    def counted(self, number: int, thing: str) -> str:
        """Return a count with its thing, in the plural where it is."""
        return self.by_count(f"count.{thing}", number)

    def by_count(self, key: str, number: int) -> str:
        """Return the sentence of one, or of several."""
        return str(self.texts[key][0 if number == 1 else 1]).format(n=f"{number:,}")

    def listed(self, found: Sequence[str]) -> str:
        """Return words as a list in a sentence."""
        if len(found) < 2:
            return found[0] if found else self._text("told.none")
        return self._text("told.and").format(before=self._text("told.comma").join(found[:-1]), last=found[-1])

    def few(self, found: Sequence[str]) -> str:
        """Return words as a list that stays short: the first of many, and how many others."""
        if len(found) <= _MOST_NAMED:
            return self.listed(found)
        others = self.counted(len(found) - _MOST_NAMED + 1, "other_silo")
        names = self._text("told.comma").join(found[: _MOST_NAMED - 1])
        return self.plain("front.more_silos", names=names, count=others)

    def moment(self, text: str | None, seconds: bool = False) -> str:
        """Return a moment of ISO 8601 for a person, in UTC; what is none stays as it is."""
        if text is None:
            return self._text("told.never")
        try:
            when = words.when_of(text)
        except ValueError:
            return text
        month = self.texts["told.month"][when.month - 1]
        time = f"{when:%H:%M:%S}" if seconds else f"{when:%H:%M}"
        return self._text("told.moment").format(day=when.day, month=month, year=when.year, time=time)

    def _text(self, key: str) -> str:
        found = self.texts[key]
        if not isinstance(found, str):
            raise TypeError(f"{key} is several sentences, of which a count chooses one")
        return found


def bare(markup: str) -> str:
    """Return a sentence of the page as text, without its markup."""
    return Markup(markup).striptags()  # noqa: S704 - what comes out is text


@cache
def catalogue(language: str = DEFAULT) -> Catalogue:
    """Return a language's catalogue.

    Raises:
        ValueError: When there is none.
    """
    if language not in languages():
        raise ValueError(f"no catalogue of language {language!r}; there are {', '.join(languages())}")
    text = (resources.files("scenarios.report.page") / f"{language}.toml").read_text(encoding="utf-8")
    return Catalogue(
        {f"{section}.{key}": said for section, keys in tomllib.loads(text).items() for key, said in keys.items()}
    )


@cache
def languages() -> tuple[str, ...]:
    """Return the languages that there is a catalogue of."""
    names = [one.name.removesuffix(".toml") for one in resources.files("scenarios.report.page").iterdir()
             if one.name.endswith(".toml")]  # fmt: skip
    return tuple(sorted(name for name in names if _LANGUAGE.fullmatch(name)))
