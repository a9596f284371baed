"""Benchmarks of one's own: instances → scopes by law → questions → checks → files (`scopewise build`)."""
