"""Ensembl ids and gene symbols: the tables, what translates by them, and the script that makes them."""
