"""A scenario as a script has it: read, edited, made from a script's own objects, shown and written.

Guarantee: what is written by `write` and read back by `read` has the same hash, which is what silos sign for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from fedmodel import config
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.system.durable import failed, replace_file
from scenarios.face.naming import maker_of, named_objects
from scenarios.face.objects import document_of
from scenarios.face.said import Objects

if TYPE_CHECKING:
    from torch import nn


class Scenario(config.Scenario):
    """One federation, from data to claim: the sections of a scenario's file (docs/scenarios.md).

    It cannot be changed: `with_` returns another. A notebook shows what it asks for, and its whole text. One that was
    made from a script's objects holds these besides its keys, and what is written of it names them alone.
    """

    _objects: Mapping[str, Callable[..., Any]] = {}  # no key: what begins so is no field

    @classmethod
    def read(cls, scenario: str | Path, settings: Iterable[str] = ()) -> Scenario:
        """Read a scenario.

        Args:
            scenario: A TOML file, or the name of a built-in scenario.
            settings: `a.b=value` overrides, each value in TOML, or a bare word for a string; `a.b=` removes the key.

        Raises:
            ConfigError: With one line, when the file or an override is not acceptable.
        """
        return cls.of_section(config.read_scenario(str(scenario), listed(settings)))

    @classmethod
    def of(cls, *, settings: Iterable[str] = (), **objects: Unpack[Objects]) -> Scenario:
        """Make a scenario from a script's own model and data; `fedmodel.simulate` says what each argument is.

        The scenario names these objects, and this process can run it, as often as it likes.

        Args:
            settings: `a.b=value` overrides of what follows from the rest, for keys that have no argument here.
            objects: As `fedmodel.simulate` takes them.

        Raises:
            ConfigError: When something is missing or not acceptable.
            TypeError: When an argument has a name that is not known.
        """
        made = config.scenario_from(document_of(objects), listed(settings), "what is simulated")
        return cls.of_section(made, named_objects(objects))

    @classmethod
    def of_section(cls, section: config.Scenario, objects: Mapping[str, Callable[..., Any]] | None = None) -> Scenario:
        """Return the same scenario as one of this class, with the objects that it names, or those that it has."""
        found = cls.model_construct(section.model_fields_set, **dict(section))
        found._objects = dict(getattr(section, "_objects", {}) if objects is None else objects)  # noqa: SLF001 - of this class
        return found

    @property
    def objects(self) -> Mapping[str, Callable[..., Any]]:
        """The objects of this process that it was made from, by the names that it has for them."""
        return dict(self._objects)

    def hand_over(self) -> None:
        """Let this process find the objects that the scenario was made from, by their names in it."""
        from fedmodel.kinds.own_code import hand_over

        for use, thing in self._objects.items():
            hand_over(use, thing)

    def with_(self, *settings: str, **sections: object) -> Scenario:
        """Return the scenario with other values.

        Args:
            settings: `a.b=value` overrides, as of `read`.
            sections: By a key at the top of a scenario, its new value. A dictionary is laid over the section that is
                there; a key of it that is None is removed.

        Raises:
            ConfigError: With one line, when what comes out is not acceptable.

        >>> scenario = Scenario.read("quickstart")
        >>> changed = scenario.with_(rounds=3, privacy={"epsilon": None, "noise_multiplier": 1.5})
        >>> changed.rounds, changed.privacy.noise_multiplier, scenario.privacy.epsilon
        (3, 1.5, 8.0)
        >>> changed.with_("privacy.noise_multiplier=2.0").privacy.noise_multiplier
        2.0
        """
        document = self.document()
        for key, value in sections.items():
            _lay(document, key, value)
        return self.of_section(config.scenario_from(document, settings, self.name), self._objects)

    def with_model(self, model: Callable[..., nn.Module] | nn.Module) -> Scenario:
        """Return the same scenario, with the object that its model's name stands for.

        Args:
            model: A class, a function that makes one, or a module.

        Raises:
            ConfigError: When the scenario's model has no such name.
        """
        use = getattr(self.model, "use", None)
        if use is None:
            kind = getattr(self.model, "kind", "")
            raise ConfigError(f"the scenario's model is of kind {kind!r}, which is made without an object")
        return self.of_section(self, {**self._objects, use: maker_of(model)})

    def seeded(self, seed: int | None = None) -> Scenario:
        """Return the scenario with a seed: its own, or the one that is given, or one that is drawn."""
        if self.seed is not None:
            return self
        return self.with_(seed=secrets.randbelow(2**31) if seed is None else seed)

    def document(self) -> dict[str, Any]:
        """Return its keys and values, as TOML has them, and where the base or the file lies that it begins from."""
        found = self.model_dump(mode="json", exclude_none=True)
        if isinstance(self.model, HfConfig) and self.model.use is not None:
            found["model"]["use"] = self.model.use
        if self.start is not None:
            places = {"file": self.start.file, "identity": self.start.identity}
            found["model"]["init"] |= {key: place for key, place in places.items() if place is not None}
        return found

    def toml(self) -> str:
        """Return its text, which `read` takes back from a file."""
        return config.scenario_to_toml(self)

    def write(self, path: str | Path) -> Path:
        """Write it to a file; what it begins from, if that is a file, is copied beside as `start.safetensors`.

        Raises:
            ConfigError: When it cannot be written.
        """
        from fedmodel.learning.starts import START, read_start

        file = Path(path)
        try:
            if self.start is not None:
                replace_file(file.parent / START, read_start(self.start))
            replace_file(file, self.toml().encode())
        except OSError as error:
            raise ConfigError(f"{file}: the scenario cannot be written: {failed(error)}") from error
        return file

    @property
    def hash(self) -> str:
        """SHA-256 of all its keys, in hexadecimal: what silos sign for, and what their laws name."""
        from fedmodel.provision import scenario_hash

        return scenario_hash(self).hex()

    def __str__(self) -> str:
        return self.toml()

    def __repr__(self) -> str:
        from scenarios.face.shown import scenario_in_a_line

        return scenario_in_a_line(self)

    def _repr_html_(self) -> str:
        from scenarios.face.shown import scenario_html

        return scenario_html(self, self.toml(), self.hash)


def listed(settings: Iterable[str]) -> tuple[str, ...]:
    """Return settings, which are several.

    Raises:
        ConfigError: When they are one text.
    """
    if isinstance(settings, str):
        raise ConfigError(f"settings are a list of settings; give [{settings!r}]")
    return tuple(settings)


def _lay(document: dict[str, Any], key: str, value: object) -> None:
    """Lay a value over a document, in place: a dictionary over what is there, None in place of nothing."""
    if value is None:
        document.pop(key, None)
    elif isinstance(value, dict) and isinstance(document.get(key), dict):
        for inner, one in value.items():
            _lay(document[key], inner, one)
    else:
        document[key] = value
