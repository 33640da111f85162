"""Benchmarks against other libraries, interleaved in one process, with JSON results."""
