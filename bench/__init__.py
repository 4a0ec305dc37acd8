"""Benchmarks: what a request costs, next to the least it could cost."""
