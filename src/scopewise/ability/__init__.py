"""General ability with lm-evaluation-harness, and our benchmarks as its tasks. Needs the extra `ability`."""
