"""The Cell Ontology that canal bundles, and what a lab's name of a cell type means in it."""
