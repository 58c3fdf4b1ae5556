"""Stages side by side."""
