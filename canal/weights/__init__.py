"""Pre-trained weights of a workspace."""
