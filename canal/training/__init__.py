"""How a stage is learned."""
