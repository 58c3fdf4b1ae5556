#!/usr/bin/env bash
# Put back what backup.sh saved, in place of what the server holds: restore.sh FOLDER
set -euo pipefail
[[ $# -eq 1 && -f $1/SHA256SUMS ]] || { echo "usage: restore.sh FOLDER, one that backup.sh wrote" >&2; exit 2; }
source=$(realpath "$1")
(cd "$source" && sha256sum --quiet --check SHA256SUMS) || { echo "$1 is damaged; nothing was changed." >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")"
read -r -p "This replaces everything on the server by $1. Type 'replace' to go on: " answer
[[ $answer = replace ]] || exit 1

docker compose up --detach --wait database storage
docker compose stop mlflow
docker compose run --rm --no-deps --volume "$source":/backup:ro --entrypoint mc bucket mb --ignore-existing lab/canal
docker compose run --rm --no-deps --volume "$source":/backup:ro --entrypoint mc bucket \
  mirror --quiet --overwrite --remove /backup/artifacts lab/canal
docker compose exec -T database pg_restore --username=canal --dbname=mlflow --clean --if-exists --single-transaction \
  <"$source/database.dump"
docker compose run --rm --no-deps -T --entrypoint tar mlflow --extract --directory=/auth <"$source/auth.tar"
docker compose up --detach --wait mlflow
echo "restored; check it from a workspace: canal registry verify"
