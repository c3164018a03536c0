"""Benchmarks of hsref against the field: one command, results as ratios, accuracy in every row."""
