#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need score
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
for model in embedding head; do
  "$BIN/score" --model "$OUT/$model" --tokens "$OUT/tokens.json" --out "$OUT/$model.safetensors" --full > "$OUT/log" 2>&1 || { cat "$OUT/log"; fail "$model: $(last)"; }
done
python3 - "$OUT" <<'P' && pass || fail 'other logits'
import sys
from tensors import largest_difference
apart = largest_difference(f"{sys.argv[1]}/embedding.safetensors", f"{sys.argv[1]}/head.safetensors", "p0.logits")
print("differs by", apart)
sys.exit(apart != 0.0)
P
