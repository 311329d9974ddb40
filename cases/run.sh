#!/usr/bin/env bash
# Runs the cases, or those that are named, and prints a PASS, FAIL or SKIP line for each; fails where one fails. The last
# lines of a case that failed go to stderr.
# BIN says where the examples' binaries are, MODEL the base policy, LOGS where each case's output goes.
set -u
cases=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$cases")
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
BIN=$(absolute "${BIN:-$root/target/release/examples}")
MODEL=$(absolute "${MODEL:-$root/models/base}")
LOGS=$(absolute "${LOGS:-$(mktemp -d "${TMPDIR:-/tmp}/cases.XXXXXX")}")
export BIN MODEL
mkdir -p "$LOGS"
# The inputs are hostile, so that what a case prints is shown with visible ASCII characters only.
legible() { LC_ALL=C tr -c '\n\t -~' '?'; }
if [ $# -eq 0 ]; then
  for folder in "$cases"/*/; do [ ! -f "$folder/cmd.sh" ] || set -- "$@" "$(basename "$folder")"; done
fi

failed=0
for name in "$@"; do
  timeout 600 bash "$cases/$name/cmd.sh" > "$LOGS/$name.log" 2>&1
  status=$?
  line=$(grep -aE '^(PASS|FAIL|SKIP) ' "$LOGS/$name.log" | tail -n 1)
  # A case that says PASS and then ends in another way has not passed.
  case "$status ${line%% *}" in
    '0 PASS' | '2 SKIP') ;;
    '1 FAIL') failed=$((failed + 1)) ;;
    *) line="FAIL $name: ended with status $status"; failed=$((failed + 1)) ;;
  esac
  printf '%s\n' "$line" | legible
  case $line in FAIL*) tail -n 20 "$LOGS/$name.log" | legible | sed 's/^/    /' >&2 ;; esac
done
[ "$failed" -eq 0 ] || { echo "$failed of $# failed; all that they printed is in $LOGS" >&2; exit 1; }
