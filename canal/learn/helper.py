"""The program of a helper process: ``python -m canal.learn.helper DEVICES``, started by the first process."""

import sys

from canal.errors import StageError


def main() -> int:
    """Join the group, train, leave; 1 where the first process is gone."""
    from canal.learn.together import help_training

    try:
        help_training(int(sys.argv[1]), 1)
    except StageError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
