"""Whether a new model may be used: held-out cells of every stage, and what models answer on them."""
