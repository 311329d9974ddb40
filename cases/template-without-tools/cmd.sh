#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
first_prompt
python3 - "$OUT/prompt" <<'P' && pass || fail 'another prompt'
import sys
prompt = open(sys.argv[1], newline="").read()
print(repr(prompt))
sys.exit(not (prompt.startswith("[user] Answer") and prompt.endswith("</s>[assistant]")))
P
