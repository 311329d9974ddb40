import json
import sys

from make_inputs import config, folder, weights

out = sys.argv[1]
made = weights(seed=5)
folder(f"{out}/embedding", config(rope_theta=1e4), made)
renamed = {("lm_head.weight" if name == "model.embed_tokens.weight" else name): tensor for name, tensor in made.items()}
folder(f"{out}/head", config(rope_theta=1e4), renamed)
with open(f"{out}/tokens.json", "w") as file:
    json.dump([list(range(2, 40))], file)
