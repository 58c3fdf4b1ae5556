"""Reading the registry costs no import of what is heavy."""

import subprocess
import sys


def test_the_registry_is_imported_without_mlflow() -> None:
    """Nor torch, anndata, pandas or SQLAlchemy."""
    code = (
        "import sys, canal.registry.registry, canal.model.record, canal.registry.health;"
        "heavy = {'mlflow', 'torch', 'anndata', 'pandas', 'sqlalchemy', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
