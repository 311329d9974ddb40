"""Writes the Parquet files that lie in the cases' folders. Needs pyarrow; run it only to change them."""
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

CASES = pathlib.Path(__file__).resolve().parent.parent
INSTRUCTION = ("Work on the question that follows. Think inside think tags, call the search tool when you lack a fact, "
               "and put the final answer inside answer tags. Question: ")


def verl(index, question, answers):
    """A row as verl's preprocess_search_r1_dataset.py lays it out."""
    truth = {"target": answers}
    arguments = {"ground_truth": truth, "question": question, "data_source": "searchR1_nq"}
    return {"data_source": "searchR1_nq", "ability": "fact-reasoning", "metadata": None,
            "prompt": [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": INSTRUCTION + question}],
            "reward_model": {"ground_truth": truth, "style": "rule"},
            "extra_info": {"index": index, "need_tools_kwargs": True, "question": question, "split": "test",
                           "tools_kwargs": {"search": {"create_kwargs": arguments}}}}


rows = [verl(0, "What is the capital of Chad?", ["N'Djamena"]), verl(1, "What is the capital of Niger?", ["Niamey"])]
pq.write_table(pa.Table.from_pylist(rows), CASES / "verl-search-r1-rows/test.parquet")

numbers = pa.array([[1960.0], [2.5]], pa.list_(pa.float64()))
columns = {"id": ["y1", "y2"], "question": ["In what year did Chad become independent?", "How high is it?"], "golden_answers": numbers}
pq.write_table(pa.table(columns), CASES / "float-answers/questions.parquet")

columns = {"id": ["q1"], "question": ["What is the capital of Chad?"],
           "golden_answers": pa.array([["N'Djamena"]], pa.list_(pa.large_string())),
           "data_source": pa.array(["nq"]).dictionary_encode()}
for codec in ("none", "snappy", "zstd", "gzip", "brotli", "lz4"):
    pq.write_table(pa.table(columns), CASES / f"parquet-codecs/{codec}.parquet", compression=codec)
