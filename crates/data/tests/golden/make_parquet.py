#!/usr/bin/env python3
"""Two small Parquet files of the kind that the field passes around, written by pyarrow.

    python make_parquet.py [OUT]   -> verl.parquet (nested columns, snappy, dictionaries), flat.parquet (zstd, gaps, two row groups)
"""
import pathlib, sys
import pyarrow as pa, pyarrow.parquet as pq
OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)


def verl(index, question, answers, source):
    return {
        "id": f"train_{index}", "question": question, "golden_answers": answers, "data_source": source,
        "prompt": [{"role": "user", "content": f"Answer the given question. For example, <answer> Beijing </answer>. Question: {question}\n"}],
        "ability": "fact-reasoning",
        "reward_model": {"ground_truth": {"target": answers}, "style": "rule"},
        "extra_info": {"index": index, "split": "train"},
        "metadata": None,
    }


rows = [verl(0, "What is the capital of Peru?", ["Lima"], "nq"), verl(1, "¿Qué río pasa por Zürich?", ["Limmat", "the Limmat"], "nq"), verl(0, "Who?", ["x"], "hotpotqa")]
pq.write_table(pa.Table.from_pylist(rows), OUT / "verl.parquet", compression="snappy", store_schema=False)
flat = pa.table({
    "id": pa.array([7, 8, 9], pa.int64()),
    "question": pa.array(["a?", "b?", "c?"], pa.binary()),
    "golden_answers": pa.array([["1"], ["2", "zwei"], ["3"]]),
    "hops": pa.array([1.0, None, 2.0], pa.float64()),
    "score": pa.array([0.5, float("nan"), None], pa.float32()),
})
pq.write_table(flat, OUT / "flat.parquet", compression="zstd", row_group_size=2, store_schema=False)
