"""Code of a user's own is called, with arguments of a scenario; what it raises is one line that names it.

Does NOT confine that code, nor hold what it returns to anything: whoever calls it does.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from fedmodel.errors import ConfigError
from fedmodel.kinds.own_code import module_of, resolve
from fedmodel.kinds.own_imports import told
from fedmodel.system.inert import inert
from fedmodel.system.memory import ran_out

_MOST_DEEP: Final = 8
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def failed(error: BaseException, uses: Iterable[str]) -> str:
    """Return an exception's type and the last line of own code that it passed through, or of any where it passed none.

    Guarantee: nothing of its text, nor of those it came of, is in that: code that was given records could name one.

    Args:
        error: As it was caught.
        uses: Names of own code, as the scenario has them.
    """
    tops = {module_of(use).partition(".")[0] for use in uses}
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [one for one in frames if str(one[0].f_globals.get("__name__")).partition(".")[0] in tops]
    places = [f" in line {line} of {Path(frame.f_code.co_filename).name}" for frame, line in (own or frames)[-1:]]
    return "".join([type(error).__name__, *places])


def call(use: str, key: str, arguments: Mapping[str, Any], offered: Mapping[str, Any], *, table: str = "") -> Any:
    """Call the function of a name with the keys of a table, and return what it returns.

    Args:
        use: As the scenario has it.
        key: Where it stands there, for messages.
        arguments: The table's keys: each has to be one of its arguments, and each that it needs one of them.
        offered: What it is given besides where it has an argument of that name that the table does not say.
        table: Which the arguments are keys of; the section that the name itself is a key of, unless said.

    Raises:
        ConfigError: In one line that names the function, when it cannot be found, takes other arguments, or raises. No
            record may be involved, since what an exception says of it is repeated.
    """
    function = resolve(use, key)
    given = fitting(function, use, key, arguments, offered, table=table)
    try:
        return function(**given)
    except (Exception, SystemExit) as error:
        if ran_out(error):
            raise ConfigError(f"{key} = {use!r} needs more memory than there is here: {told(error)}") from error
        raise ConfigError(f"{key} = {use!r} raised {told(error)}") from error


def fitting(
    function: Callable[..., Any],
    use: str,
    key: str,
    arguments: Mapping[str, Any],
    offered: Mapping[str, Any],
    *,
    table: str = "",
) -> dict[str, Any]:
    """Return what `call` would give a function that was found.

    Raises:
        ConfigError: When it takes other arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a class of C says none; what is wrong then is said by the call
        return dict(arguments)
    named = [name for name, one in signature.parameters.items() if one.kind in _NAMED]
    given = {**{name: value for name, value in offered.items() if name in named}, **arguments}
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
    table = table or key.rpartition(".")[0]
    for name in () if takes_any else arguments:
        if name not in named:
            near = get_close_matches(name, named, n=1)
            takes = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(named) or 'none'}"
            raise ConfigError(f"{table}.{name} is no argument of {key} = {use!r}; {takes}")
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ConfigError(
            f"{key} = {use!r} needs arguments that the section does not give: {inert(str(error))}; add them as keys of"
            f" [{table}], or give them defaults"
        ) from None
    return given


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has an argument of a name, by which `call` gives it what is offered.

    >>> takes(lambda width, *, deep=1: None, "deep"), takes(lambda width, **more: None, "deep")
    (True, False)
    """
    try:
        found = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):
        return False
    return found is not None and found.kind in _NAMED


def check_plain(key: str, value: object, deep: int = 0) -> None:
    """Refuse an argument that TOML and JSON do not both write the same way.

    Raises:
        ValueError: Which it is, and of which type.
    """
    if isinstance(value, dict) and deep < _MOST_DEEP:
        for name, inner in value.items():
            check_plain(f"{key}.{name}", inner, deep + 1)
    elif isinstance(value, list) and deep < _MOST_DEEP:
        for inner in value:
            check_plain(key, inner, deep + 1)
    elif not isinstance(value, bool | int | str) and not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError(f"{key} is a {type(value).__name__}; arguments are text, numbers, truths, lists and tables")
