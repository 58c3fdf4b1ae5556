"""From cells on a gene panel to their representation; one encoder a file, one contract."""
