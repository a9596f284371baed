"""Rows, prompt formats, batches, and one file per benchmark."""

BENCHMARKS: dict[str, str] = {
    "builtin": "scopewise.data.builtin:Builtin",
    "builtin_full": "scopewise.data.builtin:BuiltinFull",
    "world_facts": "scopewise.data.world_facts:WorldFacts",
    "knowundo": "scopewise.data.knowundo:KnowUnDo",
    "tofu": "scopewise.data.tofu:TOFU",
    "muse": "scopewise.data.muse:MUSE",
    "wmdp": "scopewise.data.wmdp:WMDP",
    "rwku": "scopewise.data.rwku:RWKU",
    "lume": "scopewise.data.lume:LUME",
    "pistol": "scopewise.data.pistol:PISTOL",
    "jsonl": "scopewise.data.jsonl:JsonLines",
}
"""Name → class of every benchmark that `data.benchmark` and `load_benchmark` take."""
