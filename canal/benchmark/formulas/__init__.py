"""Published formulas that no Python package offers: arrays in, arrays out; each is tested against a worked example."""
