#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
first_prompt
python3 - "$OUT/prompt" <<'P' && pass || fail 'the prompt does not begin with <s>'
import sys
prompt = open(sys.argv[1], newline="").read()
print(repr(prompt))
sys.exit(not (prompt.startswith("<s>") and prompt.count("<s>") == 1))
P
