"""Annotation of many files on a Dask cluster."""
