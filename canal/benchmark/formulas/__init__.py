"""Published formulas that no Python package offers, as functions of arrays; each is tested on a worked example."""
