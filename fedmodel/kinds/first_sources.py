"""How the first sources are written: with the keys of all of them, as when they were one section.

A scenario's hash is of its text, and silos' laws and ledgers name scenarios by it. So these sources go on being written
to the letter as they were, and a document that says a foreign key's default is read. A newer source is written plainly.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

# In the order in which they are written, each with what stands there in a section that it does not belong to.
_WRITTEN: Final[dict[str, Any]] = {
    "source": None,
    "held_out": None,
    "reference_range": None,
    "reference_ranges": {},
    "feature_bound": 3.0,
    "records": 100,
    "features": 10,
    "records_per_person": 1,
    "partition": {"size_concentration": 10.0, "label_concentration": 10.0, "min_records": 1},
    "name": None,
    "label": None,
    "labels": (),
    "columns": (),
    "person": None,
    "folder": None,
}


class FirstSource(BaseModel):
    """One of the sources whose text was there first.

    >>> class Own(FirstSource):
    ...     source: str
    ...     records: int = 100
    >>> text = Own(source="own", records=7).model_dump_json()
    >>> text[:63]
    '{"source":"own","held_out":null,"reference_range":null,"referen'
    >>> Own.model_validate_json(text) == Own(source="own", records=7)
    True
    """

    @model_validator(mode="before")
    @classmethod
    def _without_foreign_defaults(cls, document: Any) -> Any:
        """Leave out what a resolved scenario says of the keys of other sources: that they are not said."""
        if not isinstance(document, dict):
            return document
        return {key: value for key, value in document.items() if key in cls.model_fields or not _is_unsaid(key, value)}

    @model_serializer(mode="wrap")
    def _as_ever(self, written: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        own: dict[str, Any] = written(self)
        if info.exclude_unset or info.exclude_defaults:
            return own
        foreign = {
            key: default
            for key, default in _WRITTEN.items()
            if key not in type(self).model_fields and not (info.exclude_none and default is None)
        }
        found = own | foreign
        return {key: found[key] for key in (*_WRITTEN, *own) if key in found}


def _is_unsaid(key: str, value: Any) -> bool:
    """Return whether a key of some source has the value that stands in sections which it does not belong to."""
    return key in _WRITTEN and (tuple(value) if isinstance(value, list) else value) == _WRITTEN[key]
