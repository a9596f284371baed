"""General ability through lm-evaluation-harness, and the benchmarks as tasks of it. Needs the extra `ability`."""
