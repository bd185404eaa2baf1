"""Conformance suites: what a new strategy, method, combiner or backend must pass, ours and other people's.

Each suite is a function that raises AssertionError with a sentence; no test framework is needed.
"""
