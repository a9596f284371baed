"""Write docs/record.schema.json from the schema in the code: `python docs/make_record.py`; `--check` exits 1 if it is old."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scopewise.erasure.record_schema import PREDICATE_TYPE, Statement

TARGET = Path(__file__).parent / "record.schema.json"


def document() -> str:
    """Return the JSON Schema of a record's statement."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": PREDICATE_TYPE}
    return json.dumps(head | Statement.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schema, or compare it."""
    text = document()
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit("docs/record.schema.json is out of date; run `make docs`")
    elif sys.argv[1:]:
        sys.exit("docs/make_record.py: takes --check or nothing")
    else:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
