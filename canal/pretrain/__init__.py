"""Pre-training by masked expression modelling."""
