#!/usr/bin/env python3
"""620 (prediction, golden answers) cases, 120 of random characters of every script, and 15 texts with answers, scored by the released reward code.

Reference code, all unmodified:
  zerosearch  REF/qa_em.py     verl/utils/reward_score/qa_em.py of Alibaba-NLP/ZeroSearch: em_check (a substring test!), subem_check, extract_solution
  search_r1   REF/qa_em_r1.py  the same path of PeterGriffinJin/Search-R1: em_check is equality there
  squad       the SQuAD v1.1 evaluation script's normalize_answer / f1_score / exact_match_score

    python gen_reward_fixtures.py REF [OUT]   -> OUT/qa_reward.json, OUT/qa_unicode.json, OUT/qa_extract.json    (needs numpy)
"""
import collections, importlib.util, json, pathlib, random, re, string, sys, unicodedata
REF = pathlib.Path(sys.argv[1])
OUT = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent)


def load(name, f):
    s = importlib.util.spec_from_file_location(name, f); m = importlib.util.module_from_spec(s); s.loader.exec_module(m); return m


def dump(file, rows):
    (OUT / file).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


zs, r1 = load("zs", REF / "qa_em.py"), load("r1", REF / "qa_em_r1.py")


# ---- SQuAD v1.1 official evaluate-v1.1.py
def squad_normalize(s):
    def remove_articles(text): return re.sub(r'\b(a|an|the)\b', ' ', text)
    def white_space_fix(text): return ' '.join(text.split())
    def remove_punc(text):
        exclude = set(string.punctuation)
        return ''.join(ch for ch in text if ch not in exclude)
    def lower(text): return text.lower()
    return white_space_fix(remove_articles(remove_punc(lower(s))))


def squad_f1(prediction, ground_truth):
    p, g = squad_normalize(prediction).split(), squad_normalize(ground_truth).split()
    common = collections.Counter(p) & collections.Counter(g)
    num_same = sum(common.values())
    if num_same == 0: return 0
    precision, recall = 1.0 * num_same / len(p), 1.0 * num_same / len(g)
    return (2 * precision * recall) / (precision + recall)


def squad_em(prediction, ground_truth): return squad_normalize(prediction) == squad_normalize(ground_truth)


hand = [  # (prediction, golds)
    ("Paris", ["Paris"]), ("the Paris", ["Paris"]), ("PARIS!", ["paris"]), ("", ["Paris"]), ("Paris", [""]), ("", [""]), ("the", ["a"]), ("the", ["Paris"]), ("!!!", ["..."]), ("   ", ["Paris"]),
    ("Paris, France", ["Paris"]), ("Paris", ["Paris, France"]), ("in the city of Paris", ["Paris", "City of Paris"]),
    ("a", ["a"]), ("an apple a day", ["apple day"]), ("The The", ["The The"]), ("The Who", ["Who"]), ("A Tale of Two Cities", ["Tale of Two Cities"]),
    ("there", ["the re"]), ("theatre", ["the atre"]), ("the-atre", ["theatre"]), ("a-b", ["ab"]), ("an_apple", ["anapple"]), ("the.end", ["end"]), ("the end", ["the.end"]), ("U.S.A.", ["USA"]), ("U. S. A.", ["USA"]), ("u.s. a", ["us"]),
    ("don't", ["dont"]), ("don’t", ["don't"]), ("don’t", ["don’t"]), ("rock 'n' roll", ["rock n roll"]), ("rock ’n’ roll", ["rock n roll"]),
    ("Beyoncé", ["Beyonce"]), ("Beyoncé", ["Beyoncé"]), ("BEYONCÉ", ["beyoncé"]), ("Beyonce\u0301", ["Beyoncé"]), ("İstanbul", ["istanbul"]), ("İstanbul", ["i̇stanbul"]), ("ISTANBUL", ["ıstanbul"]), ("straße", ["STRASSE"]), ("STRAẞE", ["straße"]), ("ΣΊΣΥΦΟΣ", ["σίσυφος"]), ("ΟΔΟΣ", ["οδός"]), ("ΟΔΥΣΣΕΥΣ", ["οδυσσευς"]), ("Ǆ", ["ǆ"]), ("ﬁle", ["file"]), ("K", ["k"]), ("Å", ["å"]),
    ("北京", ["北京"]), ("北京，中国", ["北京"]), ("北京 中国", ["中国 北京"]), ("東京。", ["東京"]), ("Москва", ["москва"]), ("МОСКВА", ["Москва"]), ("القاهرة", ["القاهرة"]), ("서울", ["서울 "]), ("🙂", ["🙂"]), ("👩‍🚀 astronaut", ["astronaut"]),
    ("a\u00a0cat", ["cat"]), ("new\u00a0york", ["new york"]), ("new\u200byork", ["new york"]), ("new\u2003york", ["new york"]), ("tab\tsep", ["tab sep"]), ("line\nbreak", ["line break"]), ("crlf\r\nend", ["crlf end"]), ("x\u2028y", ["x y"]), ("x\x1cy", ["x y"]), ("x\x85y", ["x y"]), ("\ufeffParis", ["Paris"]), ("x\u3000y", ["x y"]), ("a\u0301pple", ["apple"]),
    ("à la carte", ["la carte"]), ("àa the", ["àa"]), ("the_the", ["thethe"]), ("a1", ["1"]), ("the2", ["2"]), ("a 1", ["1"]), ("aé", ["é"]), ("a é", ["é"]), ("the×two", ["×two"]), ("the—end", ["end"]), ("the–end", ["–end"]), ("a/the", ["athe"]), ("a / the", ["x"]), ("«the» cat", ["«» cat"]), ("“the cat”", ["cat"]), ("‘a’", ["‘ ’"]), ("the’s", ["s"]),
    ("1,000", ["1000"]), ("1.5", ["15"]), ("-5", ["5"]), ("$5", ["5"]), ("5%", ["5 %"]), ("3 million", ["3,000,000"]), ("1990s", ["1990"]), ("May 5, 1990", ["5 May 1990"]), ("5 May 1990", ["May 5, 1990", "1990"]), ("²", ["2"]), ("½", ["1/2"]), ("٣", ["3"]), ("Ⅷ", ["VIII"]), ("10°C", ["10 C"]), ("€5", ["5"]), ("£5", ["£5"]), ("x+y=z", ["xyz"]), ("C++", ["C"]), ("C#", ["c"]), ("~^`|<>=+$", [""]), ("@home", ["home"]), ("a&b", ["ab"]), ("\\back\\", ["back"]), ("{a} [the] (an)", [""]), ("<b>Paris</b>", ["bParisb"]),
    ("yes", ["yes", "no"]), ("no", ["yes", "no"]), ("No.", ["no"]), ("yes no yes", ["yes no"]), ("yes yes yes", ["yes"]), ("yes", ["yes yes yes"]), ("cat dog cat", ["cat cat dog dog"]), ("Barack Hussein Obama II", ["Barack Obama", "President Obama"]), ("President Barack Obama of the United States", ["Barack Obama"]), ("one two three four five six", ["six five four three two one"]),
    ("King", ["Stephen King", "King"]), ("kingdom", ["King"]), ("I think the answer is Paris", ["Paris"]), ("Not Paris", ["Paris"]), ("Par", ["Paris"]), ("Parisian", ["Paris"]), ("is", ["Paris"]),
]
# Where Rust's regex \\b/\\w and char::is_whitespace part from Python's re and str.split
hand += [("a²", ["²"]), ("a½", ["½"]), ("the² x", ["² x"]), ("a\u200db", ["b"]), ("a\u203fb", ["b"]), ("a①", ["①"]), ("aⒶ", ["Ⓐ"]), ("aⅧ", ["Ⅷ"]), ("the\u0301 cat", ["cat"]), ("a\u0903 x", ["x"]), ("अ a ा", ["अ"]), ("a\u20dd", [""]), ("x\x1dy", ["x y"]), ("x\x1ey", ["x y"]), ("x\x1fy", ["x y"]), ("x\u180ey", ["x y"]), ("x\u2007y", ["x y"]), ("x\u202fy", ["x y"]), ("x\u205fy", ["x y"]), ("x\u2060y", ["x y"]), ("a೨", ["೨"]), ("an\u1369", ["\u1369"]), ("the㊀", ["㊀"]), ("a\u0bf0", ["\u0bf0"])]
golds_pool = ["Paris", "the United States", "William Shakespeare", "Albert Einstein", "42", "1969", "July 20, 1969", "the Beatles", "A Tale of Two Cities", "São Paulo", "Zürich", "Gödel, Escher, Bach", "O'Brien", "Rock 'n' Roll High School", "J. R. R. Tolkien", "U.S.", "New York City", "the Pacific Ocean", "Marie Curie", "H2O", "3.14159", "E = mc²", "Łódź", "Saint-Étienne", "Nguyễn Văn Thiệu", "Владимир Ленин", "東京", "The The", "a", "An American in Paris", "yes", "no", "Charles de Gaulle Airport", "1,234,567 people", "$3.5 million", "Côte d'Ivoire", "Washington, D.C.", "\"Heroes\"", "AC/DC", "Mötley Crüe"]
rnd = random.Random(42)
muts = [lambda s: s, str.upper, str.lower, str.title, str.swapcase, lambda s: "The " + s, lambda s: "a " + s, lambda s: s + ".", lambda s: f"“{s}”", lambda s: f"'{s}'", lambda s: s.replace(" ", "  "), lambda s: s.replace(" ", "\u00a0"), lambda s: s.replace(" ", "-"), lambda s: s.replace(" ", ""),
        lambda s: s[::-1], lambda s: " ".join(reversed(s.split())), lambda s: s + " (disambiguation)", lambda s: "it was " + s + " in 1999", lambda s: s.split()[0], lambda s: s.split()[-1], lambda s: s + " " + s, lambda s: s.replace("e", "é"), lambda s: s.replace("'", "’"), lambda s: "".join(c for c in s if c.isalnum() or c == " "), lambda s: "\n" + s + "\n", lambda s: s + ", " + rnd.choice(golds_pool), lambda s: rnd.choice(golds_pool), lambda s: s[: max(1, len(s) // 2)], lambda s: "an " + s + " the", lambda s: ",".join(s)]
cases = list(hand)
while len(cases) < 620:
    k = rnd.choices([1, 2, 3, 5], [6, 3, 2, 1])[0]; golds = rnd.sample(golds_pool, k)
    s = rnd.choice(golds if rnd.random() < 0.85 else golds_pool)
    for _ in range(rnd.choice([1, 1, 2])): s = rnd.choice(muts)(s) or "x"
    if (s, golds) not in cases: cases.append((s, golds))
def scored(p, g):
    zem, zf1 = zs.em_check(p, g)
    return {"prediction": p, "golden_answers": g, "normalized_prediction": zs.normalize_answer(p), "normalized_golden": [zs.normalize_answer(x) for x in g],
                "zerosearch_em": int(zem),  # NB: substring test, not equality
                "zerosearch_f1": float(zf1), "zerosearch_subem": int(zs.subem_check(p, g)), "search_r1_em": int(r1.em_check(p, g)), "search_r1_subem": int(r1.subem_check(p, g)),
                "squad_em": int(max(squad_em(p, x) for x in g)), "squad_f1": float(max(squad_f1(p, x) for x in g))}


out = [scored(p, g) for p, g in cases]
dump("qa_reward.json", out)
assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co")]
special = list(" \t\n'’“”-_.,!?ßİıẞΣςKÅé\u0301\u3099\u3000。、Ａ１北京のアｱ한กุहि्ع\u064b\u200d\u200b\ufeff") + ["the", "an", "a", "The", "An "]
some = lambda: "".join(rnd.choice(assigned if rnd.random() < 0.5 else special) for _ in range(rnd.randint(0, 10)))
unicode_cases = []
while len(unicode_cases) < 120:
    p = some()
    g = [some() if rnd.random() < 0.5 else p + rnd.choice(special) for _ in range(rnd.randint(1, 3))]
    if all(squad_normalize(x) for x in g): unicode_cases.append(scored(p, g))
dump("qa_unicode.json", unicode_cases)
texts = ["", "no tags", "<answer>one</answer>", "<answer>one</answer> <answer>two</answer>", "<answer> a </answer><answer>\n b \n</answer><answer> c</answer>", "<answer>unclosed", "<answer>x</answer><answer>unclosed", "<answer><answer>nested</answer></answer> <answer>z</answer>",
         "<answer></answer><answer></answer>", "<answer>a</answer>\n<think>t</think>\n<search>q</search>\n<information>Doc 1: x</information>\n<answer>multi\nline</answer>", "<ANSWER>A</ANSWER><ANSWER>B</ANSWER>", "< answer>a</answer><answer>b</answer><answer>c</answer>", "<answer>a</answer><answer>b", "<answer>prompt example Beijing </answer> ... <answer> Paris\u00a0</answer>", "x</answer><answer>a</answer>y<answer>b</answer>z"]
dump("qa_extract.json", [{"text": t, "zerosearch": zs.extract_solution(t), "search_r1": r1.extract_solution(t)} for t in texts])
d = sum(o["zerosearch_f1"] != o["squad_f1"] for o in out)
print(len(out), "cases; em", sum(o["zerosearch_em"] for o in out), "strict em", sum(o["search_r1_em"] for o in out), "f1>0", sum(o["zerosearch_f1"] > 0 for o in out), "zerosearch f1 != squad f1:", d, "em differs squad:", sum(o["zerosearch_em"] != o["squad_em"] for o in out))
for o in out:
    if o["zerosearch_f1"] != o["squad_f1"]: print("   differs:", ascii(o["prediction"]), ascii(o["golden_answers"]), o["zerosearch_f1"], o["squad_f1"])
