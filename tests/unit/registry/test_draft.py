"""A draft outlives a kill, and its curves count every epoch once."""

from pathlib import Path

from canal.registry.commit import StageDraft


def _draft(folder: Path) -> StageDraft:
    return StageDraft(folder, "key", commit=None)  # type: ignore[arg-type]


def test_an_epoch_that_is_told_twice_counts_once(tmp_path: Path) -> None:
    """A resumed training repeats the epoch it was killed in; the later figures hold."""
    draft = _draft(tmp_path / "d")
    draft.log_epoch(0, {"loss": 2.0})
    draft.log_epoch(1, {"loss": 1.0})
    again = _draft(tmp_path / "d")
    again.log_epoch(1, {"loss": 0.9})

    assert [(n, v, s) for n, v, _, s in again.epochs()] == [("loss", 2.0, 0), ("loss", 0.9, 1)]


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    """The process was killed while it wrote; the next epoch is not glued to it."""
    draft = _draft(tmp_path / "d")
    draft.log_epoch(0, {"loss": 2.0})
    with (draft.folder / "epochs.jsonl").open("a") as file:
        file.write('\n{"step": 1, "ti')
    draft.log_epoch(1, {"loss": 1.5})

    assert [(v, s) for _, v, _, s in draft.epochs()] == [(2.0, 0), (1.5, 1)]


def test_clear_forgets_everything(tmp_path: Path) -> None:
    """The stage begins anew."""
    draft = _draft(tmp_path / "d")
    draft.log_epoch(0, {"loss": 2.0})
    (draft.folder / "checkpoint.safetensors").write_bytes(b"x")
    draft.clear()

    assert draft.epochs() == []
    assert list(draft.folder.iterdir()) == []
