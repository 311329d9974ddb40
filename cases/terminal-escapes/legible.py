"""Whether what a program printed is fit for a terminal: legible.py FILE…, on a terminal's output with --terminal."""
import re
import sys
import unicodedata

INVISIBLE = {0xAD, 0x61C, 0x115F, 0x1160, 0x180E, 0x3164, 0xFEFF, 0xFFA0, *range(0x200B, 0x2010), *range(0x2028, 0x202F),
             *range(0x2060, 0x2070), *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE1000)}


def faults(data, terminal):
    text = data.decode("utf-8")  # bytes that are no UTF-8 are a fault, too
    if terminal:
        # A terminal ends its lines so, colours are set and reset, and a progress bar moves within its own line.
        text = re.sub("\x1b\\[(?:[0-9;]*m|[0-9]*[ABCDK]|\\?25[lh])", "", text.replace("\r\n", "\n"))
        text = text.replace("\r", "") if terminal == "--bar" else text
    for character in text:
        code = ord(character)
        if (unicodedata.category(character) in ("Cc", "Cf") and character not in "\n\t") or code in INVISIBLE:
            yield f"U+{code:04X}"


terminal = sys.argv[1] if sys.argv[1].startswith("--") else None
wrong = False
for path in sys.argv[2 if terminal else 1:]:
    with open(path, "rb") as file:
        data = file.read()
    found = sorted(set(faults(data, terminal)))
    print(f"{path}: {len(data)} bytes, {', '.join(found) or 'legible'}")
    wrong |= bool(found) or not data
sys.exit(wrong)
