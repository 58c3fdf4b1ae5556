"""Use-cases: what happens at a stage."""
