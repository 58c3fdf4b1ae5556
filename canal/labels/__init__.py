"""The names of cell types in the Cell Ontology: suggested, accepted, shown; types renamed and merged."""
