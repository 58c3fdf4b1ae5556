"""Review: the novel, uncertain and disputed cells of a file, decided by people, taught to the next stage."""
