"""Toy sites, made once."""

from pathlib import Path

import pytest

from canal.model.model import Model
from tests.unit.sites.make import SITES, export_of, model_of


@pytest.fixture(scope="session")
def models() -> dict[str, Model]:
    """The model of each toy site."""
    return {site: model_of(types, seed) for seed, (site, types) in enumerate(SITES.items())}


@pytest.fixture(scope="session")
def exports(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The export of each toy site; tests do not change them."""
    folder = tmp_path_factory.mktemp("sites")
    return {site: export_of(folder, site, model) for site, model in models.items()}
