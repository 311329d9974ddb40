#!/usr/bin/env bash
. "$(dirname "$0")/../lib/common.sh"
need score
python3 "$HERE/inputs.py" "$OUT" || fail 'no inputs'
for model in default-top default-parameters default-inside none llama3-top llama3-inside llama3-parameters; do
  "$BIN/score" --model "$OUT/$model" --tokens "$OUT/tokens.json" --out "$OUT/$model.safetensors" > "$OUT/$model.log" 2>&1
  echo $? > "$OUT/$model.status"
done
python3 - "$OUT" <<'P' && pass || fail 'rope_theta is not read everywhere'
import sys
from tensors import largest_difference
out, wrong = sys.argv[1], 0
read = lambda name: open(f"{out}/{name}").read()
difference = lambda a, b: largest_difference(f"{out}/{a}.safetensors", f"{out}/{b}.safetensors", "p0.logits")
for kind in ("default", "llama3"):
    for place in ("parameters", "inside"):
        model = f"{kind}-{place}"
        if read(f"{model}.status").strip() != "0":
            print(model, "is refused:", read(f"{model}.log").strip())
            wrong += "rope_theta" not in read(f"{model}.log")
            continue
        apart = difference(f"{kind}-top", model)
        print(model, "differs by", apart)
        wrong += apart > 1e-4
control = difference("default-top", "none")
print("another theta differs by", control)
sys.exit(wrong > 0 or control < 1e-3)
P
