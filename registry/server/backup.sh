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
mkdir -p "$target.unfinished"

docker compose exec -T database pg_dump --username=canal --format=custom mlflow >"$target.unfinished/database.dump"
docker compose exec -T mlflow tar --create --directory=/auth . >"$target.unfinished/auth.tar"
docker compose run --rm --no-deps --volume "$target.unfinished":/backup --entrypoint mc bucket \
  mirror --quiet lab/canal /backup/artifacts
(cd "$target.unfinished" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
mv "$target.unfinished" "$target"
echo "saved to $target"
