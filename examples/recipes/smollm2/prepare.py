#!/usr/bin/env python3
"""Splits questions by entity and writes scripted episodes for the training part (standard library only).

    python3 prepare.py CORPUS QUESTIONS RETRIEVER OUT

CORPUS     {"id", "title", "contents"}; a title begins with its entity: "Peru - Government"
QUESTIONS  {"id", "question", "golden_answers", "type", "hops", "evidence": [ids of passages]}
RETRIEVER  the address of `serve --corpus CORPUS`, which says whether a scripted search finds what it should

Writes OUT/train.jsonl, OUT/held_out.jsonl (no entity of theirs is in a training question) and OUT/demonstrations.jsonl.
"""
import hashlib
import json
import pathlib
import random
import re
import sys
import urllib.request

HELD_OUT = 0.5          # share of the entities
DEMONSTRATIONS = {1: 8, 2: 20, 3: 4}     # scripted episodes by hops: few
PRACTISED = {1: 145, 2: 262, 3: 28}       # training questions by hops, at most: two thirds of several hops
EXAMINED = {1: 60, 2: 296, 3: 34}        # held-out questions by hops, at most
BARE = 0.3              # share of the episodes that begin with the question as it stands
DOCUMENTS = 2           # the `top_k` of the recipe

ASK = {
    "capital": "capital of {}",
    "peak": "highest point of {}",
    "border": "land boundaries of {}, border countries",
    "independence": "independence of {}",
    "tld": "Internet country code of {}",
    "symbol": "national symbol of {}",
}


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def held_out(entity):
    return int.from_bytes(hashlib.sha256(entity.encode()).digest()[:4], "big") < HELD_OUT * 2**32


def plain(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def mentions(text, answers):
    text = f" {plain(text)} "
    return any(plain(answer) and f" {plain(answer)} " in text for answer in answers)


def steps(row, chain):
    """(query, the answers of the step) for each hop; `chain` has the entities of the evidence, in order."""
    text, golden = row["question"], row["golden_answers"]
    first = chain[0]
    clue = lambda pattern: re.search(pattern, text).group(1)
    match row["type"]:
        case "capital":
            return [(ASK["capital"].format(first), golden)]
        case "peak" | "peak_height":
            return [(ASK["peak"].format(first), golden)]
        case "tld" | "symbol":
            return [(ASK[row["type"]].format(first), golden)]
        case "independence_date" | "independence_from":
            return [(ASK["independence"].format(first), golden)]
        case "longest_border" | "only_border":
            return [(ASK["border"].format(first), golden)]
        case "tld_capital":
            code = clue(r"code is (\S+?)\?")
            return [(f"Internet country code {code}", [first]), (ASK["capital"].format(first), golden)]
        case "capital_peak":
            city = clue(r"capital is (.+?)\?")
            return [(f"country with the capital {city}", [first]), (ASK["peak"].format(first), golden)]
        case "capital_independence":
            city = clue(r"capital is (.+?) become")
            return [(f"country with the capital {city}", [first]), (ASK["independence"].format(first), golden)]
        case "longest_border_capital" | "border_capital":
            second = chain[1]
            return [(ASK["border"].format(first), [second]), (ASK["capital"].format(second), golden)]
        case "capital_longest_border_capital":
            city, neighbour = clue(r"capital is (.+?)\?"), chain[2]
            return [
                (f"country with the capital {city}", [first]),
                (ASK["border"].format(first), [neighbour]),
                (ASK["capital"].format(neighbour), golden),
            ]
        case _:
            # All others are found by their own words.
            return [(text.rstrip("?"), golden)]


def retrieve(address, queries):
    body = json.dumps({"queries": queries, "topk": DOCUMENTS, "return_scores": False}).encode()
    request = urllib.request.Request(f"{address}/retrieve", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)["result"]
    return [" ".join(document["contents"] for document in documents) for documents in found]


def demonstration(row, chain, rng, address):
    """The turns of an episode; nothing if a search does not find what the next turn says."""
    hops = steps(row, chain)
    bare = rng.random() < BARE
    first = retrieve(address, [row["question"]])[0] if bare else ""
    turns, thought = [], "I need to look this up."
    if bare:
        turns.append(f"<think>{thought}</think><search>{row['question'].rstrip('?')}</search>")
        thought = "That does not say it yet."
    # The question itself may have found the first steps already.
    while bare and hops and mentions(first, hops[0][1]) and (len(hops) == 1 or hops[0][1][0] not in row["question"]):
        thought = f"It is {hops[0][1][0]}."
        hops = hops[1:]
    for (query, answers), found in zip(hops, retrieve(address, [query for query, _ in hops]) if hops else []):
        if not mentions(found, answers):
            return None
        turns.append(f"<think>{thought}</think><search>{query}</search>")
        thought = f"It is {answers[0]}."
    turns.append(f"<think>{thought}</think><answer>{row['golden_answers'][0]}</answer>")
    return {"question": row["question"], "golden_answers": row["golden_answers"], "hops": row["hops"], "turns": turns}


def at_most(rows, counts):
    """The first rows, so many of each number of hops."""
    left, kept = dict(counts), []
    for row in rows:
        if left[row["hops"]]:
            left[row["hops"]] -= 1
            kept.append(row)
    return kept


def main(corpus, questions, address, out):
    titles = {row["id"]: row["title"].split(" - ")[0] for row in rows(corpus)}
    countries = {plain(title): title for title in titles.values()}
    train, tests, chains = [], [], {}
    for row in rows(questions):
        chain = [titles[passage] for passage in row["evidence"]]
        chains[row["id"]] = chain
        named = [countries[plain(answer)] for answer in row["golden_answers"] if plain(answer) in countries]
        # Questions on civics have one entity for many: each is its own.
        entities = {row["question"]} if row["type"] == "civics" else set(chain + named)
        parts = {held_out(entity) for entity in entities}
        if parts == {False}:
            train.append(row)
        elif parts == {True}:
            tests.append(row)
    rng = random.Random(0)
    rng.shuffle(train)
    rng.shuffle(tests)
    demonstrations = []
    for hops, count in DEMONSTRATIONS.items():
        of_hops = (row for row in train if row["hops"] == hops)
        made = (demonstration(row, chains[row["id"]], rng, address) for row in of_hops)
        found = [episode for episode, _ in zip((episode for episode in made if episode), range(count))]
        demonstrations += found
    rng.shuffle(demonstrations)
    practised, examined = at_most(train, PRACTISED), at_most(tests, EXAMINED)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in [("train", practised), ("held_out", examined), ("demonstrations", demonstrations)]:
        temporary = out / f"{name}.jsonl.tmp"
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part), encoding="utf-8")
        temporary.rename(out / f"{name}.jsonl")
        by_hops = {hops: sum(row["hops"] == hops for row in part) for hops in (1, 2, 3)}
        print(f"{name}: {len(part)} rows, by hops {by_hops}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
