"""From a TOML file and `--set` options to a `Scenario`, or to one line that says what is wrong.

A message names the file, the key, the value found, the rule, and the nearest known word where a word is unknown.
"""

from __future__ import annotations

import json
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedmodel.config.federation import FederationFile, ServerFile
from fedmodel.config.law import SiloFile
from fedmodel.config.scenario import Scenario
from fedmodel.config.toml_forms import why_no_toml
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.own_code import OF_A_SCRIPT
from fedmodel.kinds.partitions import PARTITIONS
from fedmodel.privacy.events import UNITS
from fedmodel.system.kinds import not_known

_SCRIPT_ALONE = "# It names objects of a script, {}: only a process that has them can run it again.\n"
_File = TypeVar("_File", bound=BaseModel)
_NOTHING: Final[Mapping[str, str]] = {}
_PRIVACY_KEYS = "unit, max_grad_norm, delta, sample_rate, expected_batch_size and one of epsilon or noise_multiplier"
_DEALT: Final = ["data", "partition"]
_LONGEST: Final = 200  # characters of a value that is told back
_ALIKE: Final = 0.75  # a choice is misspelt, and no word of another meaning: "patient" is not "client"
_BEGINNING: Final = 3  # characters that a known word has, at the least, to be taken for a longer one


def builtin_scenarios() -> dict[str, Path]:
    """Return the scenarios that ship with the distribution, by name."""
    folder = Path(str(files("scenarios")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_scenario(name_or_path: str, settings: Iterable[str] = (), seed: int | None = None) -> Scenario:
    """Read a scenario from a file, or from the built-in ones by name.

    Args:
        name_or_path: A path to a TOML file, or the name of a built-in scenario.
        settings: `a.b=value` overrides, each value in TOML, or a bare word for a string; `a.b=` removes the key.
        seed: What a scenario without a seed gets, where it is one that began already.

    Returns:
        The validated scenario. A scenario without a seed gets one from the operating system, where none is given. The
        paths of the file that it begins from are absolute: from the scenario's folder, or from this one where an
        override says them.

    Raises:
        ConfigError: With one line, when the file or an override is not acceptable.
    """
    path = _find(name_or_path)
    document = _document(path, "a scenario is read from this file, and it cannot be read")
    settings = list(settings)
    for setting in settings:
        _apply(document, setting)
    document.setdefault("seed", secrets.randbelow(2**31) if seed is None else seed)
    return _with_places(_validate(document, path.name), path.parent, settings)


def folder_of(name_or_path: str) -> Path | None:
    """Return the folder in which a scenario's file lies, with code that it names; None of a built-in one.

    Raises:
        ConfigError: When there is no such scenario.
    """
    path = _find(name_or_path)
    return None if path in builtin_scenarios().values() else path.absolute().parent


@lru_cache(maxsize=16)
def scenario_from_json(text: str) -> Scenario:
    """Read back what `Scenario.model_dump_json` wrote; of one text, the one scenario that this process made of it.

    Raises:
        ConfigError: When the text is not a scenario.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the run's scenario is not JSON; start it with `fedmodel simulate`") from error
    return _validate(document, "the run's scenario")


def scenario_to_toml(scenario: Scenario) -> str:
    """Return the scenario as resolved, defaults and seed included, in TOML that `read_scenario` takes back."""
    objects = sorted({use for use in scenario.own_code.values() if use.startswith(f"{OF_A_SCRIPT}:")})
    return (_SCRIPT_ALONE.format(", ".join(objects)) if objects else "") + to_toml(scenario)


def scenario_from(document: Mapping[str, Any], settings: Iterable[str] = (), source: str = "the scenario") -> Scenario:
    """Return the scenario that a document says, as a file of it would be read.

    Args:
        document: Keys and values as TOML has them.
        settings: `a.b=value` overrides, as of `read_scenario`.
        source: What a message calls the document.

    Raises:
        ConfigError: With one line, when the document or an override is not acceptable.
    """
    said = deepcopy(dict(document))
    for setting in settings:
        _apply(said, setting)
    return _validate(said, source)


def read_silo_file(path: Path) -> SiloFile:
    """Read a silo's own `silo.toml`.

    Raises:
        ConfigError: With one line, when there is none or it is not acceptable.
    """
    return _read(path, SiloFile, "a silo acts by its own law, and this file cannot be read")


def read_server_file(path: Path) -> ServerFile:
    """Read a server's own `server.toml`.

    Raises:
        ConfigError: With one line, when there is none or it is not acceptable.
    """
    return _read(path, ServerFile, "a server runs by this file, and it cannot be read")


def read_federation_file(path: Path) -> FederationFile:
    """Read what a federation is made from, `federation.toml`.

    Raises:
        ConfigError: With one line, when there is none or it is not acceptable.
    """
    return _read(path, FederationFile, "a federation is made from this file, and it cannot be read")


def to_toml(document: BaseModel) -> str:
    """Return any of these files in TOML that its reader takes back."""
    return tomli_w.dumps(document.model_dump(mode="json", exclude_none=True))


def silo_file_to_toml(silo_file: SiloFile) -> str:
    """Return a silo's law in TOML that `read_silo_file` takes back."""
    return to_toml(silo_file)


def _read(path: Path, kind: type[_File], why: str) -> _File:
    """Return a file as one of the models, or say in one line what is wrong with it."""
    found: _File = _parsed(path.name, _content(path, why), kind)
    return found


@lru_cache(maxsize=4096)
def _parsed(name: str, content: bytes, kind: type[Any]) -> Any:
    """Return a file's content as one of the models; the same content again is not parsed again."""
    try:
        return kind.model_validate(_toml(name, content))
    except ValidationError as error:
        raise ConfigError(f"{name}: {explained(error, kind)}") from error


def _document(path: Path, why: str) -> dict[str, Any]:
    """Return what a TOML file holds, a byte order mark or none before it, or say in one line why it cannot be read."""
    return _toml(path.name, _content(path, why))


def _content(path: Path, why: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {why}: {error.strerror}") from error


def _toml(name: str, content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is not UTF-8 from byte {error.start + 1} on; save it as UTF-8") from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, or a number of ten thousand digits
        raise ConfigError(f"{name}: not valid TOML: {error}{why_no_toml(text, error)}") from error


def _find(name_or_path: str) -> Path:
    """Return the file that is meant, an existing path before a built-in name."""
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        raise ConfigError(f"{name_or_path[:80]!r}: is not the name of a file or of a scenario") from error
    known = builtin_scenarios()
    if name_or_path in known:
        return known[name_or_path]
    near = get_close_matches(path.stem, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`fedmodel scenarios` lists the built-in ones"
    raise ConfigError(f"{name_or_path}: no such file and no built-in scenario of that name; {hint}")


def _apply(document: dict[str, Any], setting: str) -> None:
    """Lay one `a.b=value` over the document, in place."""
    key, equals, text = setting.partition("=")
    words = [word.strip() for word in key.split(".")]
    if not equals or not all(words):
        raise ConfigError(f"--set {setting}: expected key=value, as in --set privacy.epsilon=2")
    target = document
    for word in words[:-1]:
        target = target.setdefault(word, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {setting}: {word} is a value, not a section")
    if not text.strip():
        target.pop(words[-1], None)
        return
    try:
        target[words[-1]] = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        target[words[-1]] = text.strip()  # a bare word is a string: --set training.optimizer=adam


def _with_places(scenario: Scenario, folder: Path, settings: Iterable[str]) -> Scenario:
    """Return a scenario that says from the root where its base lies, and the file that it begins from."""
    said = {setting.partition("=")[0].replace(" ", "") for setting in settings}
    if isinstance(scenario.model, HfConfig):
        beside = Path.cwd() if said & {"model", "model.use"} else folder
        scenario = scenario.model_copy(update={"model": scenario.model.placed(beside)})
    start = scenario.start
    if start is None:
        return scenario

    def placed(key: str, path: str) -> str:
        here = said & {"model", "model.init", f"model.init.{key}"}
        return str((Path.cwd() if here else folder.absolute()) / Path(path).expanduser())

    identity = None if start.identity is None else placed("identity", start.identity)
    return scenario.begun(start.model_copy(update={"file": placed("file", start.file), "identity": identity}))


def _validate(document: Mapping[str, Any], source: str) -> Scenario:
    """Return the scenario, or raise the first thing wrong as one line."""
    try:
        return Scenario.model_validate(dict(document))
    except ValidationError as error:
        problems = error.errors()
        more = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise ConfigError(f"{source}: {_explain(_telling(problems))}{more}") from error


def explained(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return what is wrong with a document that a model does not take: the key, what was found, and the rule."""
    return _explain(_telling(error.errors()), kind)


def _telling(problems: list[ErrorDetails]) -> ErrorDetails:
    """Return the problem to tell: where a key is missing, one that is not known is often that key, mistyped."""
    unknown = (problem for problem in problems if problem["type"] == "extra_forbidden")
    return next(unknown, problems[0]) if problems[0]["type"] == "missing" else problems[0]


def _explain(problem: ErrorDetails, root: type[BaseModel] = Scenario) -> str:
    """Say in one line what pydantic found."""
    location = problem["loc"]
    if location[:1] == ("model",) and location[2:3] == ("init",):  # behind it pydantic says of which kind
        location = (*location[:3], *location[4:])
    # Behind a section of one of several kinds, pydantic puts which into the location; a person never wrote it there.
    kinds = _kinds(root, location[:1])
    words = [str(part) for part in (location[:1] + location[2:] if kinds else location)]
    if words[:2] == _DEALT and words[2:3]:
        del words[2]  # it says of which kind of partition, likewise
    where = ".".join(words)
    section = _section(location[:-1], root) if location else root
    found = problem["input"]
    match problem["type"]:
        case "extra_forbidden" if len(location) == 3 and any(words[-1] in kind.model_fields for kind in kinds.values()):
            key = root.model_fields[words[0]].discriminator
            return f"{where} does not belong to {key} = {location[1]!r}; leave it out"
        case "extra_forbidden" if words[:2] == _DEALT and any(
            words[-1] in one.model_fields for one in PARTITIONS.values()
        ):
            return f"{where} does not belong to kind = {location[3]!r}; leave it out"
        case "extra_forbidden":
            return f"{where} is not a known key; {_nearest(words[-1], section.model_fields)}"
        case "missing" if root is Scenario and words[0] == "privacy":
            return f"{where} is missing; a privacy claim needs {_PRIVACY_KEYS}: say it, nothing is guessed"
        case "missing":
            return f"{where} is missing; add it"
        case "union_tag_not_found":
            return f"{where}.{_key(problem)} is missing; known: {', '.join(kinds)}"
        case "union_tag_invalid" if words == _DEALT:
            return not_known("kind of partition", str(problem["ctx"]["tag"]), PARTITIONS)
        case "union_tag_invalid":
            key = _key(problem)
            return not_known(where if key == "kind" else key, str(found[key]), kinds)
        case "string_pattern_mismatch" if words[-1] == "[key]":
            return f"{'.'.join(words[:-1])}: a name is lower-case letters, digits and hyphens, 40 at most"
        case "literal_error":
            # In a list, the last word is a place in it.
            key = next(word for word in reversed(words) if word in section.model_fields)
            choices = [str(choice) for choice in _choices(section.model_fields[key].annotation)]
            about = UNITS if choices == list(UNITS) else {}
            return f"{where} = {found!r} is not known; {_nearest(str(found), choices, _ALIKE, about)}"
        case "value_error":
            rule = str(problem["ctx"]["error"])
            return f"{where}: {rule}" if where else rule
        case _:
            rule = problem["msg"][0].lower() + problem["msg"][1:]
            said = repr(found)
            said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
            return f"{where} = {said} is not accepted: {rule}"


def _choices(annotation: Any) -> list[object]:
    """Return what a Literal admits, or what the Literal inside a tuple does."""
    inner = [choice for part in get_args(annotation) for choice in (_choices(part) if get_args(part) else [part])]
    return [choice for choice in inner if isinstance(choice, str | int)]


def _nearest(word: str, known: Iterable[str], alike: float = 0.6, about: Mapping[str, str] = _NOTHING) -> str:
    """Name the nearest known word, one that is the beginning of a longer word included ("monday"), or all of them.

    Where something is known `about` them it is said of all.
    """
    names = list(known)
    near = get_close_matches(word, names, n=1, cutoff=alike) or [
        name for name in names if len(name) >= _BEGINNING and word.lower().startswith(name)
    ]
    told = [f"{name} ({about[name]})" if name in about else name for name in names]
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(told)}"


def _section(location: tuple[int | str, ...], root: type[BaseModel]) -> type[BaseModel]:
    """Return the section that a location lies in; places in a list and keys of a table lie in what they are in."""
    section = root
    for at, part in enumerate(location):
        known = section.model_fields.get(str(part))
        kind = _kinds(root, location[:1]).get(str(part)) if at == 1 else None
        if at and location[at - 1] == _DEALT[-1]:
            kind = PARTITIONS.get(str(part))
        section = kind or (known and _model_in(known.annotation)) or section
    return section


def _key(problem: ErrorDetails) -> str:
    """Return the key that says of which kind a section is, as pydantic quotes it."""
    return str(problem["ctx"]["discriminator"]).strip("'")


def _kinds(root: type[BaseModel], location: tuple[int | str, ...]) -> dict[str, type[BaseModel]]:
    """Return the kinds that a section at the top of a file may be of, by name; none where it is of no several."""
    field = root.model_fields.get(str(location[0])) if location else None
    if field is None or not isinstance(field.discriminator, str):
        return {}
    kinds: tuple[type[BaseModel], ...] = get_args(field.annotation)
    return {str(get_args(kind.model_fields[field.discriminator].annotation)[0]): kind for kind in kinds}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the one section that a type holds, plain, optional, in a tuple or in a table; none of a union of kinds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [found for part in get_args(annotation) if (found := _model_in(part)) is not None]
    return inner[0] if len(inner) == 1 else None
