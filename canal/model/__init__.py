"""What a stage leaves behind, and how it answers."""
