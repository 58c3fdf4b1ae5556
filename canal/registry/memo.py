"""What was computed from the registry once, kept under the digest of everything that went into it.

Nothing here is part of a stage: it can be deleted at any time, and is computed again then.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from canal import __version__
from canal.registry.artifacts import digest_bytes, write_whole


def key_of(kind: str, **inputs: Any) -> str:
    """Return the key of a computation: the digest of its kind, of all its inputs and of canal's version.

    Parameters
    ----------
    kind
        What is computed.
    inputs
        Plain values; whatever may change the answer, files by their digests.
    """
    text = json.dumps({"kind": kind, "canal": __version__, **inputs}, sort_keys=True, ensure_ascii=False)
    return digest_bytes(text.encode()).removeprefix("sha256:")


class Memo:
    """Answers as JSON, one file each.

    Parameters
    ----------
    folder
        Where they are; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Any:
        """Return an answer, ``None`` where there is none or its file was altered."""
        path = self.folder / f"{key}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] != key or kept["digest"] != _digest(kept["answer"]):
                return None
            os.utime(path)  # `canal registry gc` deletes what was not used for longest
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return kept["answer"]

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer; where the folder cannot be written it is computed again the next time."""
        table = {"key": key, "digest": _digest(answer), "answer": answer}
        with contextlib.suppress(OSError):
            write_whole(self.folder / f"{key}.json", json.dumps(table, ensure_ascii=False).encode())


def _digest(answer: Any) -> str:
    return digest_bytes(json.dumps(answer, sort_keys=True, ensure_ascii=False).encode())
