"""The JSON schema of a report, as published beside this module: what `report.json` has under `report`."""

from __future__ import annotations

import json
from typing import Any

from scenarios.report.document import Report


def report_schema() -> dict[str, Any]:
    """Return the schema, JSON Schema 2020-12."""
    return Report.model_json_schema(mode="serialization")


def schema_text() -> str:
    """Return the published file's text.

    `python -c "from scenarios.report.page.schema import schema_text; print(schema_text(), end='')"` writes it again.
    """
    return json.dumps(report_schema(), indent=2, sort_keys=True) + "\n"
