"""An audit tells members where they can be told, and does not where they cannot."""

import numpy as np
import pytest
import scipy.sparse as sp

import canal
from canal.data.values import unit_rows
from canal.errors import CanalError, DataError
from canal.model.memory import type_statistics
from canal.sites.attacks import (
    DIFFERENCE,
    DIRECTIONS,
    LIKELIHOOD,
    Reference,
    Split,
    attack_split,
    cells_needed,
    directions,
    half_width,
    likelihood,
    members_first,
)
from canal.sites.audit import AuditOptions, attack_donors, audit_export
from canal.sites.manifest import read_export
from tests.make import make_adata


def areas(cells: int, genes: int, members: int) -> dict[str, float]:
    """Return the AUROC of each attack on random cells."""
    rng = np.random.default_rng(0)
    rows = unit_rows(sp.csr_matrix(rng.poisson(1.0, (cells, genes)).astype(np.float32)))
    order = rng.permutation(cells)
    split = Split(members=order[:members], others=order[members : 2 * members], reference=order[2 * members :])
    return {name: members_first(scores) for name, scores in attack_split(rows, split, {DIRECTIONS: 2}).items()}


def test_means_of_few_cells_and_many_genes_tell_members():
    """The attack of Homer et al. is strong with many genes, and weak with many cells and few genes."""
    strong, weak = areas(400, 1500, 50), areas(3000, 15, 1000)
    assert strong[LIKELIHOOD] > 0.95
    assert strong[DIRECTIONS] > 0.6
    assert strong[DIFFERENCE] > 0.95
    assert abs(weak[LIKELIHOOD] - 0.5) < 0.06
    assert abs(weak[DIRECTIONS] - 0.5) < 0.06


def test_attacks_are_chance_without_members():
    """Statistics of other cells tell nothing: the attacks have no leak of their own."""
    rng = np.random.default_rng(1)
    rows = unit_rows(sp.csr_matrix(rng.poisson(1.0, (600, 300)).astype(np.float32)))
    statistics = type_statistics(rows[:100], stage=1, name="", rank=5)
    reference = Reference.of(rows[100:200].toarray())
    profiles = rows[200:600].toarray().astype(np.float64)
    assert abs(members_first(likelihood(profiles, statistics.mean, reference)) - 0.5) < 0.08
    assert abs(members_first(directions(profiles, statistics)) - 0.5) < 0.08


def test_interval_and_extrapolation():
    """The interval narrows with members and types; the estimate grows with the square of the distance."""
    assert half_width(0.8, 100, 1) == pytest.approx(1.96 * 0.031, abs=0.003)  # Hanley and McNeil's table
    assert half_width(0.8, 100, 4) == pytest.approx(half_width(0.8, 100, 1) / 2)
    assert cells_needed(100, 0.5, 0.55) == 100
    assert cells_needed(400, 0.55, 0.55) == 400
    assert 20_000 < cells_needed(100, 0.975, 0.55) < 30_000


def test_an_audit_of_an_export(exports, tmp_path):
    """Findings by attack and size; the outcome goes into the manifest of a new file, whose statistics stay."""
    data = tmp_path / "mine.h5ad"
    adata = make_adata(700, types=("B", "NK"), seed=0)
    adata.obs["donor"] = [f"d{k % 9}" for k in range(700)]
    adata.write_h5ad(data)
    workspace = canal.open_workspace(tmp_path / "w", create=True)

    out = tmp_path / "out.canal"
    audit = workspace.audit_export(exports["north"], data, labels="cell_type", donor="donor", out=out)

    found = {(f.attack, f.cells): f for f in audit.findings}
    assert {n for attack, n in found if attack == LIKELIHOOD} == {20, 50, 100}
    assert all(f.types == 2 for f in audit.findings if f.attack == LIKELIHOOD)
    assert all(f.low <= f.auroc <= f.high for f in audit.findings)
    assert (DIRECTIONS, 100) in found
    assert (DIRECTIONS, 50) not in found  # an export has none of so few cells
    assert "donors" in {f.attack for f in audit.findings}
    assert audit.export["smallest_type"] > 0.55
    assert audit.min_cells_needed is None
    assert audit.min_cells_estimated > 100
    kept = read_export(out)
    assert kept.manifest["audit"]["digest"] == read_export(exports["north"]).digest
    before = read_export(exports["north"]).model.memory.statistics
    for ours, theirs in zip(kept.model.memory.statistics, before, strict=True):
        np.testing.assert_array_equal(ours.mean, theirs.mean)


def donors_told(spread: float) -> list[float]:
    """Return the AUROC of the two attacks on donors whose genes differ by a factor of e to the ``spread``."""
    rng = np.random.default_rng(3)
    owner = np.arange(720) % 12
    level = rng.gamma(1.0, 2.0, 300) * rng.lognormal(0.0, spread, (12, 300))
    rows = unit_rows(sp.csr_matrix(rng.poisson(level[owner]).astype(np.float32)))
    names = np.array([f"d{k}" for k in owner])
    findings, warning = attack_donors(rows, np.full(720, "B", dtype=object), names, seed=0)
    assert warning is None
    assert [finding.attack for finding in findings] == ["donors", "donors by other cells"]
    return [finding.auroc for finding in findings]


def test_generated_donors_are_told_by_what_is_their_own():
    """By other cells of theirs only where they differ; by the very cells in any case."""
    alike, different = donors_told(0.0), donors_told(1.0)
    assert alike[0] > 0.8
    assert abs(alike[1] - 0.5) < 0.15
    assert different[1] > 0.85


def test_what_cannot_be_audited(exports, tmp_path):
    """Too few cells, other genes, no such column: one message."""
    few, other = tmp_path / "few.h5ad", tmp_path / "other.h5ad"
    make_adata(40, types=("B", "NK")).write_h5ad(few)
    make_adata(200, types=("B", "NK"), genes=[f"other{g}" for g in range(60)]).write_h5ad(other)
    options = AuditOptions(labels="cell_type")
    with pytest.raises(DataError, match="no type with 60 cells"):
        audit_export(exports["north"], few, options)
    with pytest.raises(CanalError, match="not the cells that it was made of"):
        audit_export(exports["north"], other, options)
    with pytest.raises(DataError, match=r"no column obs\['donor'\]"):
        audit_export(exports["north"], few, AuditOptions(labels="cell_type", donor="donor"))
