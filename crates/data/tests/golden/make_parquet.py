#!/usr/bin/env python3
"""Small Parquet files of the kind that the field passes around, written by pyarrow.

    python make_parquet.py [OUT]   -> verl.parquet (nested columns, snappy, dictionaries), flat.parquet (zstd, gaps, two row groups),
                                      tools.parquet (verl's script for search tools), codecs.parquet (a codec a column), types.parquet, intervals.parquet
                                      (by DuckDB, since pyarrow writes none)
"""
import datetime, decimal, pathlib, sys, uuid
import duckdb
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

ORDER = "Answer the given question. Reason first, then answer between tags. For example, <answer> Beijing </answer>. Question: "


def tools(index, question, reward_model, truth):
    """A row as preprocess_search_r1_dataset.py of verl writes it; reward_model is None where its source has only golden_answers."""
    search = {"create_kwargs": {"ground_truth": truth, "question": question, "data_source": "searchR1_nq"}}
    return {
        "data_source": "searchR1_nq", "ability": None, "reward_model": reward_model, "metadata": None,
        "prompt": [{"role": "system", "content": "You are a helpful and harmless assistant."}, {"role": "user", "content": ORDER + question}],
        "extra_info": {"index": index, "need_tools_kwargs": True, "question": question, "split": "test", "tools_kwargs": {"search": search}},
    }


model = {"ground_truth": {"target": ["N'Djamena", "Ndjamena"]}, "style": "rule"}
rows = [tools(0, "What is the capital of Chad?", model, model["ground_truth"]), tools(1, "What is the capital of Niger?", None, {"target": ["Niamey"]})]
pq.write_table(pa.Table.from_pylist(rows), OUT / "tools.parquet")

codecs = {"id": "gzip", "question": "brotli", "golden_answers": "lz4", "data_source": "zstd", "hops": "snappy", "note": "none"}
rows = pa.table({
    "id": [f"q{i}" for i in range(40)], "question": ["a?" * 20] * 40, "golden_answers": pa.array([["x" * 20]] * 40, pa.list_(pa.large_string())),
    "data_source": pa.array(["nq"] * 40).dictionary_encode(), "hops": [1] * 40, "note": pa.array(["n"] * 40, pa.string_view()),
})
paths = {key + (".list.element" if key == "golden_answers" else ""): codec for key, codec in codecs.items()}
pq.write_table(rows, OUT / "codecs.parquet", compression=paths, data_page_version="2.0", write_page_index=True)

moment = datetime.datetime(2008, 8, 8, 20, 8, 0, 500000)
column = {
    "null": pa.nulls(1), "u64": pa.array([2**64 - 1], pa.uint64()), "f16": pa.array([0.5], pa.float16()), "f32": pa.array([0.1], pa.float32()), "inf": [float("inf")],
    "day": [moment.date()], "no_day": pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), "midnight": pa.array([datetime.datetime(1960, 8, 11)], pa.timestamp("ns")),
    "s": pa.array([moment.replace(microsecond=0)], pa.timestamp("s")), "us": pa.array([moment], pa.timestamp("us")), "ns": pa.array([moment], pa.timestamp("ns")),
    "utc": pa.array([moment], pa.timestamp("ms", tz="Asia/Shanghai")), "never": pa.array([2**63 - 1], pa.int64()).cast(pa.timestamp("us")),
    "time": [datetime.time(1, 2, 3)], "time_ns": pa.array([datetime.time(1, 2, 3, 4)], pa.time64("ns")), "duration": [datetime.timedelta(seconds=1)],
    "dec": [decimal.Decimal("-1960.00")], "dec256": pa.array([decimal.Decimal("2.50")], pa.decimal256(50, 2)), "dec_int": [decimal.Decimal("1900")],
    "uuid": pa.array([uuid.UUID("12345678-90ab-cdef-1234-567890abcdef").bytes], pa.uuid()), "blob": [b"\xff\x00"], "text": pa.array([b"text"], pa.large_binary()),
    "fixed": pa.array([[1.5, 2.5]], pa.list_(pa.float32(), 2)), "views": pa.array([["a"]], pa.large_list(pa.string_view())),
    "deep": pa.array([[{"days": [moment.date()], "one": {"at": moment}}, None]]),
    "map": pa.array([[(moment.date(), [("k", moment.date())])]], pa.map_(pa.date32(), pa.map_(pa.string(), pa.date32()))),
}
duckdb.sql("copy (select 'q1' as id, 'a?' as question, ['x', 'y'] as golden_answers, interval '3 days' as wait, {'a': interval '1 month', 'b': 1} as parts) "
           f"to '{OUT}/intervals.parquet' (format parquet)")
pq.write_table(pa.table({"id": ["t"], "question": ["a?"], "golden_answers": ["x"], **column}), OUT / "types.parquet")
