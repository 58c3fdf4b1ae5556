"""From a file of cells to checked cells on a gene panel."""
