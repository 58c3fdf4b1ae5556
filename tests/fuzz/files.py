"""Files of cells with damaged bytes, each read in a process of its own under limits of memory and time.

``python -m tests.fuzz.files --cases 20000 --seed 1`` tries many and prints what went wrong; the suite tries some. A
case is a container, a seed and nothing else: ``python -m tests.fuzz.files --only csr:17`` tries one again and shows it.

What is known and not mended: HDF5 itself loops for ever in the attributes of some damaged objects (about one case in
two thousand); no code of ours runs meanwhile.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canal.data.stream import read_cells
from canal.errors import CanalError
from tests.make import make_adata
from tests.unit.data.containers import write

CONTAINERS = (
    "csr",
    "csc",
    "dense",
    "gzip",
    "raw",
    "tenx_h5",
    "tenx_h5_v2",
    "old_h5ad",
    "mtx",
    "mtx_gz",
    "zarr",
    "zarr_csc",
)
SECONDS = 20
MEMORY = 2**30  # above what the process has before it reads
LONGEST_MESSAGE = 3_000


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes
    ----------
    case
        Container and seed.
    kind
        ``read``, ``refused``, or what must not be: ``traceback``, ``signal``, ``slow``, ``memory``.
    text
        The message, or the traceback.
    """

    case: str
    kind: str
    text: str

    @property
    def wrong(self) -> bool:
        """Whether it is a finding."""
        return self.kind not in {"read", "refused"}


def make_files(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return toy cells in every container: the bytes of each file by its name inside the case's folder."""
    adata = make_adata(40, types=("B", "NK"), seed=1, n_genes=30)
    made = {}
    for container in CONTAINERS:
        inside = folder / container
        inside.mkdir(parents=True)
        cells = adata.copy()
        if container == "raw":
            cells.raw = adata.copy()
            cells = cells[:, :12].copy()
        root = write(cells, "csr" if container == "raw" else container, inside)
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        made[container] = {str(path.relative_to(inside)): path.read_bytes() for path in files}
    return made


def damage(files: dict[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """Return the files of a case with one of them damaged: bytes changed, zeroed, repeated or cut off."""
    names = sorted(files)
    # The large ones hold most of what can be wrong; small ones are the tables of contents.
    name = names[int(rng.integers(len(names)))]
    content = bytearray(files[name])
    if not content:
        return files
    way = rng.choice(["flip", "bit", "zero", "number", "cut", "repeat"], p=[0.35, 0.25, 0.1, 0.15, 0.05, 0.1])
    # What describes a file stands at its beginning more often than not.
    span = len(content) if rng.random() < 0.6 else max(1, min(len(content), 4096))
    for _ in range(int(rng.choice([1, 1, 2, 8, 32]))):
        at = int(rng.integers(span))
        if way == "flip":
            content[at] = int(rng.integers(256))
        elif way == "bit":
            content[at] ^= 1 << int(rng.integers(8))
        elif way == "zero":
            content[at : at + int(rng.integers(1, 64))] = bytes(len(content[at : at + 16]))
        elif way == "number":
            value = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1], shuffle=False) % 2**64)
            content[at : at + 8] = value.to_bytes(8, "little")[: len(content[at : at + 8])]
        elif way == "repeat":
            size = int(rng.integers(1, 64))
            content[at:at] = content[at : at + size]
        else:
            del content[at:]
            break
    return files | {name: bytes(content)}


def read(path: Path) -> None:
    """Do what every command does first: read the cells and their labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_cells(path, labels="cell_type")


def try_case(case: str, files: dict[str, bytes], folder: Path) -> Outcome:
    """Damage and write the files of a case, and read them in a forked process."""
    container, seed = case.split(":")
    rng = np.random.default_rng([int(seed), CONTAINERS.index(container)])
    place = folder / case.replace(":", "-")
    for name, content in damage(files, rng).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    outcome = try_file(case, place / sorted(files)[0].split("/")[0], folder)
    shutil.rmtree(place)
    return outcome


def try_file(case: str, path: Path, folder: Path) -> Outcome:
    """Read a file in a forked process with limits."""
    note = folder / "note"
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _child(path, note)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Outcome(case, "slow" if number == signal.SIGALRM else "signal", signal.Signals(number).name)
    if not note.is_file():
        return Outcome(case, "memory", f"exit {os.WEXITSTATUS(status)} without a word")
    kind, text = json.loads(note.read_text())
    return Outcome(case, kind, text)


def _child(path: Path, note: Path) -> None:
    """Read a file under limits, note how it ended, and end the process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.alarm(SECONDS)
        note.write_text(json.dumps(_ended(path)))
    finally:
        os._exit(0)


def _ended(path: Path) -> tuple[str, str]:
    try:
        read(path)
    except CanalError as error:
        text = str(error)
        return ("refused" if len(text) < LONGEST_MESSAGE else "traceback"), text[:LONGEST_MESSAGE]
    except MemoryError:
        return "memory", traceback.format_exc()
    except BaseException:  # noqa: BLE001  # a finding
        return "traceback", traceback.format_exc()
    return "read", ""


def sweep(cases: int, seed: int, only: str | None = None) -> list[Outcome]:
    """Try the given number of cases, the containers in turn."""
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = make_files(folder / "made")
        names = [only] if only else []
        for k in range(0 if only else cases):
            names.append(f"{CONTAINERS[k % len(CONTAINERS)]}:{seed + k // len(CONTAINERS)}")
        for case in names:
            outcomes.append(try_case(case, made[case.split(":")[0]], folder))
    return outcomes


def main() -> None:
    """Try cases and print what went wrong, grouped by the last line of what was raised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="container and seed of one case")
    given = parser.parse_args()
    outcomes = sweep(given.cases, given.seed, given.only)
    print(dict(Counter(outcome.kind for outcome in outcomes)))
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    for text, times in Counter(outcome.text.strip().splitlines()[-1][:160] for outcome in wrong).most_common():
        example = next(outcome for outcome in wrong if outcome.text.strip().splitlines()[-1][:160] == text)
        print(f"{times:5d}  {example.case:14s} {example.kind}: {text}")
    if given.only:
        print(outcomes[0].text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
