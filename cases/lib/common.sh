# Sourced by every cmd.sh.
#   BIN    the folder of the examples' binaries
#   MODEL  the shipped base policy
#   OUT    a scratch folder, empty
#   ROWS   questions, documents and a run's configuration that several cases use
# A case ends by pass, fail or skip (exit status 0, 1, 2), each of which prints one line.
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
NAME=$(basename "$HERE")
LIB=$HERE/../lib
ROWS=$LIB/rows
# Without the case's name, whose words some cases look for in the output.
OUT=$(mktemp -d "${TMPDIR:-/tmp}/case.XXXXXX")
SERVER=
export PYTHONPATH=$LIB PYTHONDONTWRITEBYTECODE=1
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
finish() {
  [ -z "$SERVER" ] || kill "$SERVER" 2>/dev/null
  rm -rf "$OUT"
}
trap finish EXIT

pass() { echo "PASS $NAME${1:+: $1}"; exit 0; }
fail() { echo "FAIL $NAME: $*"; exit 1; }
skip() { echo "SKIP $NAME: $*"; exit 2; }

# need BINARY…: skips the case where one has not been built.
need() {
  local binary
  for binary in "$@"; do [ -x "$BIN/$binary" ] || skip "no $BIN/$binary"; done
  [ -d "$MODEL" ] || skip "no $MODEL"
}

# evaluate OUT-FILE ARGUMENT…: one run of the example, its output in OUT/log.
evaluate() {
  local out=$1
  shift
  "$BIN/evaluate" --out "$out" "$@" > "$OUT/log" 2>&1
}

# first_prompt: asks the model of the case's inputs.py about Chad; its prompt, as it was rendered, is in OUT/prompt.
first_prompt() {
  need evaluate
  python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
  evaluate "$OUT/s.json" --model "$OUT/model" --questions "$ROWS/chad.jsonl" --strategy direct --max-new-tokens 2 || fail "$(last 3)"
  python3 -c 'import json, sys; sys.stdout.write(json.loads(open(sys.argv[1]).readline())["transcript"][0]["text"])' "$OUT/s.predictions.jsonl" > "$OUT/prompt"
}

# configure FILE [SED-SCRIPT]: writes the run's configuration, changed by the script.
configure() {
  sed -e "s,@MODEL@,$MODEL,; s,@ROWS@,$ROWS,; s,@OUT@,$OUT," -e "${2:-}" "$ROWS/run.toml" > "$1"
}

# start_server MODE: a retrieval server that misbehaves in one way, at PORT; its requests are logged in OUT/server.log.
start_server() {
  python3 "$LIB/server.py" "$1" "$OUT/port" "$OUT/server.log" & SERVER=$!
  for _ in $(seq 100); do [ -s "$OUT/port" ] && break; sleep 0.1; done
  [ -s "$OUT/port" ] || skip 'the server does not start'
  PORT=$(cat "$OUT/port")
}

# search_failures SCORES-FILE: how many searches of an evaluation failed.
search_failures() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["search_failures"])' "$1"; }

# The last line of the log, for the message of a failed case.
last() { tail -n "${1:-1}" "$OUT/log" | tr '\n' ' '; }
