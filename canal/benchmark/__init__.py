"""The benchmark: methods beside each other on the same stream of stages, each cell of the table in its own process."""
