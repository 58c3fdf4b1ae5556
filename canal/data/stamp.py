"""Whether a file is the one it was, told without reading it."""

from pathlib import Path


def file_stamp(path: Path) -> list[tuple[str, int, int, int, int]] | None:
    """Return what changes whenever a file is written, moved or replaced; ``None`` where there is none.

    Size, times of the last writing and of the last change of any kind, and the file's number on its disk; of a folder,
    such as zarr, those of everything in it. Equal stamps mean equal content. Different ones may do so, too, such as
    after a copy.

    Parameters
    ----------
    path
        File or folder.
    """
    try:
        parts = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
        found = [(part, part.stat()) for part in parts]
    except OSError:
        return None
    return [(str(part), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for part, s in found]
