"""Annotators of several sites that become one without moving a cell: export, merge, report."""
