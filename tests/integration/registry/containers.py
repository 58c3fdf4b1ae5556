"""`docker compose` for a machine without containers: runs what a service of compose.yaml would run, here.

The scripts of registry/server/ are run as they are; this stands in for the program `docker` on their PATH. It knows the
ways they call it, runs pg_dump, pg_restore and artifacts.py for real, and notes every call.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

_WITH_VALUE = {"--volume", "--env", "--user"}


def main() -> int:
    """Do what `docker WORDS` would; return its exit status."""
    facts = json.loads(Path(os.environ["FAKE_CONTAINERS"]).read_text())
    words = sys.argv[1:]
    with Path(facts["log"]).open("a") as log:
        log.write(" ".join(words) + "\n")
    assert words.pop(0) == "compose", words
    verb = words.pop(0)
    if verb in {"up", "stop"}:
        return 0
    assert verb in {"exec", "run"}, verb
    while words[0].startswith("-"):
        assert words.pop(0) not in _WITH_VALUE, "not known here"
    service = words.pop(0)
    command = words or facts["commands"][service]
    for inside, outside in facts["places"].items():
        command = [word.replace(inside, outside) for word in command]
    return subprocess.run(command, env=os.environ | facts["environment"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
