"""Scripts that run in the environments of peers; none of them imports canal.

`serve.py` is the common half: it needs NumPy and SciPy alone. Each other script is started as
``ENVIRONMENT/bin/python SCRIPT FOLDER`` and offers one function, ``fit``.
"""
