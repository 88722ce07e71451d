"""What every section of a file has in common: frozen, strict, no unknown key; and types that several of them use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import isabstract
from types import ModuleType
from typing import Annotated, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedmodel.system.inert import inert

SiloName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
DataName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
AgeRecipient = Annotated[str, Field(pattern=r"^age1[02-9ac-hj-np-z]{58}$")]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]


def names_device(value: str) -> str:
    """Refuse what is no name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
        raise ValueError(f"{value!r} is not known; say auto, cpu, cuda, or cuda:N for one of several cards")
    return value


Device = Annotated[str, AfterValidator(names_device)]


def is_inert(value: str) -> str:
    """Refuse a text with a character that acts on whoever shows it, or that nobody sees."""
    if inert(value) != value:
        raise ValueError(f"a character in it acts on whoever shows it, or is not seen; it is {inert(value)!r}")
    return value


def _is_address(value: str) -> str:
    """Refuse what is no "host:port"; an address of IPv6 stands in brackets."""
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
        raise ValueError(f'{value!r} is no address; write "host:port", as in "fl.example.org:9443" or "[::1]:9443"')
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
        raise ValueError(f"{value!r} has no port from 1 to 65535 behind the colon")
    return value


Address = Annotated[str, AfterValidator(_is_address)]


def known_silos(named: Iterable[str], silos: tuple[str, ...], where: str) -> None:
    """Refuse a name that no silo bears."""
    for name in named:
        if name not in silos:
            near = get_close_matches(name, silos, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(silos)}"
            raise ValueError(f"{where} names {name!r}, which is no silo of this federation{hint}")


class Section(BaseModel):
    """Base of every section: immutable, strict about types, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_Kind = TypeVar("_Kind", bound=Section)


def sections(modules: Mapping[str, ModuleType], base: type[_Kind], key: str) -> dict[str, type[_Kind]]:
    """Return the one section that each file of a folder of kinds defines, by the file's name, which is `key` in it.

    Raises:
        TypeError: When a file defines none or several, one of another name, or one that lacks what is asked of a kind.
    """
    return {name: _section(name, module, base, key) for name, module in modules.items()}


def _section(name: str, module: ModuleType, base: type[_Kind], key: str) -> type[_Kind]:
    """Return a file's section, or say what keeps it from being a kind."""
    found: list[type[_Kind]] = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, base) and one.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} defines {len(found)} sections that are a {base.__name__}; a kind is one")
    if get_args(found[0].model_fields[key].annotation) != (name,):
        raise TypeError(f'{module.__name__}: {found[0].__name__} has to say {key}: Literal["{name}"], as its file is')
    if isabstract(found[0]):
        lacking = ", ".join(sorted(found[0].__abstractmethods__))
        raise TypeError(f"{module.__name__}: {found[0].__name__} lacks {lacking}, which is asked of a {base.__name__}")
    return found[0]
