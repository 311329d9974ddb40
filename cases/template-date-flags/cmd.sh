#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
first_prompt
python3 - "$OUT/prompt" <<'P' && pass || fail 'another date'
import re
import sys
prompt = open(sys.argv[1], newline="").read()
print(repr(prompt))
sys.exit(not re.match(r"Today is [A-Z][a-z]+day, [1-9]\d? [A-Z][a-z]+ 20\d\d, [01]\d:[0-5]\d [AP]M\.\n", prompt))
P
