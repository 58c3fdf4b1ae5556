"""Put plausible bugs in one at a time, and tell which of them the tests catch.

By hand, all of them or some::

    python -m tests.mutants
    python -m tests.mutants --sample 10 --seed 1 --area registry

Works in a temporary copy of the project; exit code 1 if a bug survives.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.mutants.mutants import copy_tree, misplaced, preload, read_mutants, run_tests, try_mutant

FEW = 5  # bugs up to which each test imports what it needs by itself


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, help="how many bugs, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--area", help="only those of one table, such as learning")
    asked = parser.parse_args()

    # 1. Which bugs; a list that has grown old is told before anything is run.
    mutants = [mutant for mutant in read_mutants() if asked.area in (None, mutant.area)]
    old = [text for text in map(misplaced, mutants) if text]
    if old or not mutants:
        print("\n".join(old) or f"There is no table {asked.area}.toml.", file=sys.stderr)
        return 2
    if asked.sample is not None:
        mutants = random.Random(asked.seed).sample(mutants, min(asked.sample, len(mutants)))

    with tempfile.TemporaryDirectory(prefix="canal-mutants-") as folder:
        tree = copy_tree(Path(folder))
        if len(mutants) > FEW:
            preload()
        # 2. Their tests pass without any bug: else their failing says nothing.
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, printed = run_tests(tests, tree)
        if code != 0:
            print(f"The tests fail without any bug:\n{printed}", file=sys.stderr)
            return 2
        # 3. One bug after the other.
        outcomes = []
        for mutant in mutants:
            outcome = try_mutant(mutant, tree)
            outcomes.append(outcome)
            line = f"{outcome.verdict:9}{outcome.seconds:6.1f} s  {mutant.area:11}{mutant.name}  ({outcome.told})"
            print(line, flush=True)

    # 4. How many were caught, by table.
    of_area = Counter(outcome.mutant.area for outcome in outcomes)
    caught = Counter(outcome.mutant.area for outcome in outcomes if outcome.verdict == "caught")
    for area, number in of_area.items():
        print(f"{area}: {caught[area]} of {number} caught")
    print(f"all: {caught.total()} of {len(outcomes)} caught")
    return 0 if caught.total() == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
