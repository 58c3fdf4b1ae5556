#!/usr/bin/env bash
# Make a user, or let one add stages: user.sh NAME [MODEL]
#
# Asks for the administrator's password and, for a new user, for theirs. URL: MLFLOW_TRACKING_URI,
# else http://127.0.0.1:5000.
set -euo pipefail
[[ $# -ge 1 && $# -le 2 ]] || { echo "usage: user.sh NAME [MODEL]" >&2; exit 2; }
url=${MLFLOW_TRACKING_URI:-http://127.0.0.1:5000}
read -r -s -p "password of admin: " admin && echo

ask() { # METHOD PATH JSON; the password goes in on stdin, where no list of processes shows it
  printf 'user = "admin:%s"\n' "$admin" |
    curl --silent --show-error --fail-with-body --config - --request "$1" --header 'Content-Type: application/json' \
      --data "$3" "$url/api/$2" && echo
}

if [[ $# -eq 1 ]]; then
  read -r -s -p "password of $1, at least 12 characters: " password && echo
  [[ $password =~ ^[^\"\\]{12,}$ ]] || { echo "expected 12 characters or more, without \" and \\" >&2; exit 2; }
  ask POST 2.0/mlflow/users/create "{\"username\": \"$1\", \"password\": \"$password\"}"
  exit
fi
experiment=$(ask GET "2.0/mlflow/experiments/get-by-name?experiment_name=$2" '{}' |
  sed -n 's/.*"experiment_id": *"\([0-9]*\)".*/\1/p' | head -1)
for resource in "registered_model $2" "experiment $experiment"; do
  read -r kind id <<<"$resource"
  ask POST 3.0/mlflow/users/permissions/grant \
    "{\"username\": \"$1\", \"resource_type\": \"$kind\", \"resource_id\": \"$id\", \"permission\": \"EDIT\"}"
done
