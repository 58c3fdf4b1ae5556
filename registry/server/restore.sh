#!/usr/bin/env bash
# Put back what backup.sh saved, in place of what the server holds: restore.sh FOLDER
#
# Files come before the database that names them, and what the backup does not know goes last. A
# restore that was stopped is run again.
set -euo pipefail
[[ $# -eq 1 && -f $1/SHA256SUMS ]] || { echo "usage: restore.sh FOLDER, one that backup.sh wrote" >&2; exit 2; }
source=$(realpath "$1")
(cd "$source" && [[ $(wc -l <SHA256SUMS) -eq 3 ]] && sha256sum --quiet --strict --check SHA256SUMS) ||
  { echo "$1 is damaged; nothing was changed." >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")"
read -r -p "This replaces everything on the server by $1. Type 'replace' to go on: " answer
[[ $answer = replace ]] || { echo "nothing was changed" >&2; exit 1; }

docker compose up --detach --wait database storage
docker compose stop mlflow
docker compose run --rm -T bucket </dev/null
docker compose run --rm --no-deps -T mlflow python /opt/artifacts.py put <"$source/artifacts.tar"
docker compose exec -T database pg_restore --username=canal --dbname=mlflow --clean --if-exists --single-transaction \
  <"$source/database.dump"
docker compose run --rm --no-deps -T mlflow sh -c 'rm -f /auth/basic_auth.db* && cat >/auth/basic_auth.db' \
  <"$source/users.db"
docker compose run --rm --no-deps -T mlflow python /opt/artifacts.py prune <"$source/artifacts.tar"
docker compose up --detach --wait mlflow
echo "restored; check it from a workspace: canal registry verify"
