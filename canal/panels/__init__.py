"""Targeted panels: what a short list of genes will tell apart, and which genes to add, from statistics alone."""
