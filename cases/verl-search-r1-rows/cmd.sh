#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need evaluate
evaluate "$OUT/s.json" --model "$MODEL" --questions "$HERE/test.parquet" --corpus "$HERE/corpus.jsonl" --strategy rag --top-k 1 --max-new-tokens 4 || fail "$(last)"
python3 - "$OUT/s.predictions.jsonl" <<'P' && pass || fail 'another question, answer or document'
import json
import sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for row in rows:
    print(row["id"], repr(row["question"]), row["golden_answers"], repr(row["transcript"][1]["text"][:80]))
asked = [(row["id"], row["question"], row["golden_answers"]) for row in rows]
found = [country in row["transcript"][1]["text"] for country, row in zip(("Chad", "Niger"), rows)]
sys.exit(asked != [("test_0", "What is the capital of Chad?", ["N'Djamena"]), ("test_1", "What is the capital of Niger?", ["Niamey"])]
         or not all(found))
P
