import json
import random
import sys

from make_inputs import config, folder, weights

out = sys.argv[1]
llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
for name, keys in {
    "default-top": dict(rope_theta=1e6, rope_scaling=None),
    "default-parameters": dict(rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "default-inside": dict(rope_scaling=dict(rope_type="default", rope_theta=1e6)),
    "none": {},
    "llama3-top": dict(rope_theta=5e5, rope_scaling=llama3),
    "llama3-inside": dict(rope_scaling=llama3 | dict(rope_theta=5e5)),
    "llama3-parameters": dict(rope_parameters=llama3 | dict(rope_theta=5e5)),
}.items():
    folder(f"{out}/{name}", config(**keys), weights())
draw = random.Random(3)
with open(f"{out}/tokens.json", "w") as file:
    json.dump([[draw.randrange(2, 64) for _ in range(300)], [draw.randrange(2, 64) for _ in range(40)]], file)
