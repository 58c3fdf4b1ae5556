"""The main path: add, annotate, evaluate, promote."""
