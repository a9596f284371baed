"""Runs: the stages of a run file in a run folder, and a bench over many methods."""
