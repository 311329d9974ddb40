#!/usr/bin/env python3
"""Oracle fixtures for RL advantage estimators, policy losses, KL estimators and aggregation.

Oracles: verl's own core_algos.py (from the PyPI wheel: `pip install --no-deps verl==0.9.1 omegaconf
antlr4-python3-runtime==4.9.3`, no ray/tensordict/vllm needed because the heavy package
__init__ files are bypassed here) and ZeroSearch's older fork of it (in a clone of Alibaba-NLP/ZeroSearch:
`git show HEAD:verl/trainer/ppo/core_algos.py` and `git show HEAD:verl/utils/torch_functional.py`, saved
beside this script as ref/zs_core_algos.py and ref/zs_torch_functional.py).

    python gen_rl_fixtures.py [outdir]      -> outdir/rl_oracles.json and rl_oracles.json.gz

Each case: {"name", "oracle", "fn", "params", "inputs": {..}, "outputs": {..}}; arrays are nested lists, each number the shortest decimal that parses back to the oracle's f32.
Gradients: policy losses also give d loss / d log_prob.
"""
import importlib.util, json, pathlib, sys, types
import numpy as np, torch

HERE = pathlib.Path(__file__).parent
OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "fixtures/rl"); OUT.mkdir(parents=True, exist_ok=True)


def find(pkg):  # a package's folder without running its __init__
    return pathlib.Path(next(p for p in sys.path if (pathlib.Path(p) / pkg / "__init__.py").exists())) / pkg


def shell(name, path=None, **attrs):
    m = types.ModuleType(name); m.__path__ = [str(path)] if path else []
    m.__dict__.update(attrs); sys.modules[name] = m; return m


class Cfg(dict):  # stands in for ActorConfig / AlgoConfig
    def __getattr__(self, k): return self[k]


class ActorConfig(Cfg): pass
class AlgoConfig(Cfg): pass


V = find("verl")
try:
    import tensordict  # noqa
except ImportError:
    shell("tensordict", TensorDict=dict)
shell("verl", V); shell("verl.trainer", V / "trainer"); shell("verl.trainer.ppo", V / "trainer/ppo"); shell("verl.workers", V / "workers")
shell("verl.trainer.config", AlgoConfig=AlgoConfig); shell("verl.workers.config", ActorConfig=ActorConfig)
U = shell("verl.utils", V / "utils")
shell("verl.utils.device", get_device_name=lambda: "cpu", get_torch_device=lambda: torch.cpu, is_cuda_available=False, is_npu_available=False, get_device_id=lambda: 0)
from verl.utils.groupwise import as_torch_index, group_mean_std  # noqa: E402
U.as_torch_index, U.group_mean_std = as_torch_index, group_mean_std
import verl.trainer.ppo.core_algos as ca  # noqa: E402

# ZeroSearch's fork, with its own torch_functional
def load(name, file, **mods):
    saved = {k: sys.modules.get(k) for k in mods}; sys.modules.update(mods)
    saved_attr = {}
    for k, v in mods.items():
        parent, _, leaf = k.rpartition("."); saved_attr[k] = getattr(sys.modules[parent], leaf, None); setattr(sys.modules[parent], leaf, v)
    spec = importlib.util.spec_from_file_location(name, file); m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    for k, v in saved.items():
        if v is None: sys.modules.pop(k)
        else: sys.modules[k] = v; setattr(sys.modules[k.rpartition(".")[0]], k.rpartition(".")[2], v)
    return m

src = (HERE / "ref/zs_torch_functional.py").read_text()
zf = types.ModuleType("zs_torch_functional")
keep = {}
exec(compile(src, "zs_torch_functional.py", "exec"), zf.__dict__)
zs = load("zs_core_algos", HERE / "ref/zs_core_algos.py", **{"verl.utils.torch_functional": zf})

torch.manual_seed(20260101); rng = np.random.default_rng(7)
cases = []


def js(x):
    if isinstance(x, torch.Tensor):  # shortest decimal that reads back to the same f32
        a = x.detach().to(torch.float32).numpy()
        return [js(v) for v in x.detach()] if a.ndim > 1 else ([float(str(v)) for v in a] if a.ndim else float(str(a)))
    if isinstance(x, np.ndarray): return x.tolist()
    return x


def case(name, oracle, fn, params, inputs, outputs):
    cases.append({"name": name, "oracle": oracle, "fn": fn, "params": params,
                  "inputs": {k: js(v) for k, v in inputs.items()}, "outputs": {k: js(v) for k, v in outputs.items()}})


def masks(kind, b, t):
    m = torch.zeros(b, t)
    for i in range(b):
        n = int(rng.integers(3, t + 1)); m[i, :n] = 1
        if kind == "multiturn":  # holes: observation (retrieved <information>) tokens are masked out
            a = int(rng.integers(1, max(2, n - 2))); m[i, a:min(n - 1, a + int(rng.integers(1, 4)))] = 0
    return m


def outcome(b, t, mask, rewards):
    r = torch.zeros(b, t)
    for i in range(b): r[i, int(mask[i].nonzero().max())] = rewards[i]
    return r


GROUPS = [("g4x4", 4, 4, 12), ("g2x8", 2, 8, 9), ("g5x3", 5, 3, 16)]
for kind in ("plain", "multiturn"):
    for gname, p, n, t in GROUPS:
        b = p * n; mask = masks(kind, b, t)
        idx = np.repeat(np.arange(p), n)
        for rname in ("gauss", "binary", "f1", "degenerate"):
            if rname == "gauss": rew = torch.tensor(rng.normal(size=b), dtype=torch.float32)
            elif rname == "binary": rew = torch.tensor(rng.integers(0, 2, b), dtype=torch.float32)
            elif rname == "f1": rew = torch.tensor(rng.choice([0, 0.25, 0.4, 0.5, 2 / 3, 1.0], b), dtype=torch.float32)
            else:
                rew = torch.tensor(rng.integers(0, 2, b), dtype=torch.float32); rew[:n] = 1.0; rew[n:2 * n] = 0.0  # all-equal groups
            tlr = outcome(b, t, mask, rew); tag = f"{kind}/{gname}/{rname}"
            base = {"token_level_rewards": tlr, "response_mask": mask, "index": idx}
            def run(f, **kw):
                return f(token_level_rewards=tlr.clone(), response_mask=mask.clone(), **kw)
            for nm, f, kw in [
                ("grpo", ca.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": True}),
                ("dr_grpo", ca.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": False}),
                ("grpo_vectorized", ca.compute_grpo_vectorized_outcome_advantage, {"norm_adv_by_std_in_grpo": True}),
                ("rloo", ca.compute_rloo_outcome_advantage, {}),
                ("rloo_vectorized", ca.compute_rloo_vectorized_outcome_advantage, {}),
                ("reinforce_plus_plus_baseline", ca.compute_reinforce_plus_plus_baseline_outcome_advantage, {}),
                ("opo", ca.compute_opo_outcome_advantage, {}),
            ]:
                try: a, r = run(f, index=idx, **kw)
                except Exception as e: print("skip", nm, tag, repr(e)[:100]); continue
                case(f"{nm}/{tag}", "verl-0.9.1", nm, {**kw, "epsilon": 1e-6}, base, {"advantages": a, "returns": r})
            for gamma in (1.0, 0.97):
                a, r = run(ca.compute_reinforce_plus_plus_outcome_advantage, config=AlgoConfig(gamma=gamma))
                case(f"reinforce_plus_plus/{tag}/gamma{gamma}", "verl-0.9.1", "reinforce_plus_plus", {"gamma": gamma}, base, {"advantages": a, "returns": r})
            bl = torch.tensor(rng.normal(size=b) * 0.5, dtype=torch.float32)
            a, r = run(ca.compute_remax_outcome_advantage, reward_baselines=bl)
            case(f"remax/{tag}", "verl-0.9.1", "remax", {}, {**base, "reward_baselines": bl}, {"advantages": a, "returns": r})
            a, r = zs.compute_grpo_outcome_advantage(tlr.clone(), mask.clone(), idx)
            case(f"zerosearch_grpo/{tag}", "zerosearch", "grpo", {"epsilon": 1e-6}, base, {"advantages": a, "returns": r})
            a, r = zs.compute_reinforce_outcome_advantage(tlr.clone(), mask.clone())
            case(f"zerosearch_reinforce/{tag}", "zerosearch", "reinforce", {}, base, {"advantages": a, "returns": r})
        # GAE: outcome reward less a per-token KL penalty, as in training
        values = torch.tensor(rng.normal(size=(b, t)) * 0.5, dtype=torch.float32)
        old = -torch.rand(b, t) * 3; ref = old + torch.randn(b, t) * 0.3
        rew = outcome(b, t, mask, torch.tensor(rng.integers(0, 2, b), dtype=torch.float32)) - 0.01 * (old - ref) * mask
        for gamma, lam in ((1.0, 1.0), (1.0, 0.95), (0.99, 0.9), (0.9, 0.0)):
            a, r = ca.compute_gae_advantage_return(rew, values, mask, gamma, lam)
            case(f"gae/{kind}/{gname}/g{gamma}l{lam}", "verl-0.9.1", "gae", {"gamma": gamma, "lam": lam},
                 {"token_level_rewards": rew, "values": values, "response_mask": mask}, {"advantages_whitened": a, "returns": r, "advantages_raw": r - values})
            a, r = zs.compute_gae_advantage_return(rew, values, mask, gamma, lam)
            case(f"zerosearch_gae/{kind}/{gname}/g{gamma}l{lam}", "zerosearch", "gae_zerosearch", {"gamma": gamma, "lam": lam},
                 {"token_level_rewards": rew, "values": values, "response_mask": mask}, {"advantages_whitened": a, "returns": r, "advantages_raw": r - values})
        # KL estimators
        for k in ("k1", "abs", "k2", "k3"):
            for plus in ("", "+"):
                lp = old.clone().requires_grad_(True); out = ca.kl_penalty(lp, ref, k + plus); (g,) = torch.autograd.grad((out * mask).sum(), lp)
                case(f"kl/{k}{plus}/{kind}/{gname}", "verl-0.9.1", "kl_penalty", {"kind": k + plus}, {"log_prob": old, "ref_log_prob": ref, "response_mask": mask}, {"kl": out, "grad_log_prob_of_masked_sum": g})
        # policy losses
        lp0 = old + torch.randn(b, t) * 0.4; lp0[0, 0] = old[0, 0] + 3.0; lp0[1, 1] = old[1, 1] - 3.0
        adv = torch.randn(b, t) * mask; adv_seq = torch.randn(b, 1).expand(b, t) * mask
        empty = mask.clone(); empty[b - 1] = 0  # one sequence with no trained token
        for mode in ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"):
            for nm, kw in [("ppo", dict(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=1e9)),
                           ("ppo_dual_clip", dict(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=3.0)),
                           ("dapo_clip_higher", dict(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=10.0)),
                           ("gspo", dict(clip_ratio=0.2, clip_ratio_low=3e-4, clip_ratio_high=4e-4)),
                           ("gspo_wide", dict(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28)),
                           ("cispo", dict(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28))]:
                for mname, m in (("mask", mask), ("mask_with_empty_row", empty)):
                    f = {"gspo": ca.compute_policy_loss_gspo, "gspo_wide": ca.compute_policy_loss_gspo, "cispo": ca.compute_policy_loss_cispo}.get(nm, ca.compute_policy_loss_vanilla)
                    A = (adv_seq if "gspo" in nm else adv) * m
                    lp = lp0.clone().requires_grad_(True)
                    loss, met = f(old, lp, A, m, loss_agg_mode=mode, config=ActorConfig(**kw, global_batch_info={}))
                    (g,) = torch.autograd.grad(loss, lp)
                    case(f"policy/{nm}/{mode}/{mname}/{kind}/{gname}", "verl-0.9.1", "policy_loss", {"loss": nm, "agg": mode, **kw},
                         {"old_log_prob": old, "log_prob": lp0, "advantages": A, "response_mask": m}, {"loss": loss, "grad_log_prob": g, **met})
        lp = lp0.clone().requires_grad_(True); loss, frac, kl = zs.compute_policy_loss(old, lp, adv, mask, 0.2); (g,) = torch.autograd.grad(loss, lp)
        case(f"policy/zerosearch_ppo/{kind}/{gname}", "zerosearch", "policy_loss", {"loss": "ppo", "agg": "token-mean", "cliprange": 0.2},
             {"old_log_prob": old, "log_prob": lp0, "advantages": adv, "response_mask": mask}, {"loss": loss, "grad_log_prob": g, "clipfrac": frac, "ppo_kl": kl})
        vp = (values + torch.randn(b, t) * 0.5).requires_grad_(True); ret = torch.randn(b, t)
        vl, vf = ca.compute_value_loss(vp, ret, values, mask, 0.5); (g,) = torch.autograd.grad(vl, vp)
        case(f"value_loss/{kind}/{gname}", "verl-0.9.1", "value_loss", {"cliprange_value": 0.5}, {"vpreds": vp, "returns": ret, "values": values, "response_mask": mask}, {"loss": vl, "clipfrac": vf, "grad_vpreds": g})

text = json.dumps(cases, separators=(",", ":"))
(OUT / "rl_oracles.json").write_text(text)
import gzip
(OUT / "rl_oracles.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
from collections import Counter
print(len(cases), "cases,", (OUT / "rl_oracles.json").stat().st_size, "bytes;", Counter(c["fn"] for c in cases))
