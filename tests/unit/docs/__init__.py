"""Tests of how the documentation site is made."""
