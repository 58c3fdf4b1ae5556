"""A catalogue of ready-made models: an index and files, in a folder or on a server."""
