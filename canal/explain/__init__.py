"""Which genes a model looks at."""
