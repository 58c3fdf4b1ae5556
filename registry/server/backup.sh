#!/usr/bin/env bash
# Save database, users and artifacts into one new folder: backup.sh FOLDER
#
# The database first, then the artifacts: files are written before anything refers to them and are
# never changed, so that a backup of a running server holds every file its database names.
set -euo pipefail
[[ $# -eq 1 ]] || { echo "usage: backup.sh FOLDER" >&2; exit 2; }
[[ ! -e $1 ]] || { echo "$1 exists already; name a new folder." >&2; exit 2; }
target=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
umask 077 # it holds the users' password hashes
rm -rf "$target.unfinished" # of a backup that was stopped
mkdir -p "$target.unfinished"

docker compose exec -T database pg_dump --username=canal --format=custom mlflow >"$target.unfinished/database.dump"
docker compose exec -T mlflow python -c \
  'import sqlite3, sys; sys.stdout.buffer.write(sqlite3.connect("/auth/basic_auth.db").serialize())' \
  >"$target.unfinished/users.db"
docker compose exec -T mlflow python /opt/artifacts.py save >"$target.unfinished/artifacts.tar"
(cd "$target.unfinished" && sha256sum database.dump users.db artifacts.tar >SHA256SUMS)
mv "$target.unfinished" "$target"
echo "saved to $target"
