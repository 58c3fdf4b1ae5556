"""What was learned, taken back, repeated, compared and handed over."""
