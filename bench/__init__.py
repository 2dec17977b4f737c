"""Benchmarks: every figure is a ratio within one run, because the machines are noisy. `python -m bench` runs them."""
