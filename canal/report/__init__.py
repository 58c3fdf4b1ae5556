"""Annotations and facts as AnnData columns, tables and pictures."""
