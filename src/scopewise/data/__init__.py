"""Rows, prompt formats, batches, and one file per benchmark."""

BENCHMARKS: dict[str, str] = {
    "builtin": "scopewise.data.builtin:Builtin",
    "knowundo": "scopewise.data.knowundo:KnowUnDo",
    "jsonl": "scopewise.data.jsonl:JsonLines",
}
"""Name → class of every benchmark that `data.benchmark` and `load_benchmark` take."""
