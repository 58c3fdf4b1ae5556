"""Plausible bugs, put in one at a time, and the tests that must fail then; run ``python -m tests.mutants``."""
