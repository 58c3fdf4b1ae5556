"""Annotations as AnnData columns, tables and pictures."""
