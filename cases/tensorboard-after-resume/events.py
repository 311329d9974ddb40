"""Compares a run's TensorBoard files with its metrics.jsonl: events.py RUN_FOLDER."""
import json
import pathlib
import struct
import sys

TAG = "response_length/mean"


def fields(data):
    """The fields of a protobuf message: number, and a number or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind)
        size = varint() if size is None else size
        yield key >> 3, data[at:at + size]
        at += size


def events(path):
    data, at = path.read_bytes(), 0
    # A killed process may leave half a record at the end.
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 16 + size > len(data):
            return
        yield dict(fields(data[at + 12:at + 12 + size]))
        at += 16 + size


run, shown = pathlib.Path(sys.argv[1]), []
files = sorted(run.rglob("events.out.tfevents.*"))
for path in files:
    for event in events(path):
        step = event.get(2, 0)
        if 7 in event and dict(fields(event[7])).get(1) == 1:
            shown = [row for row in shown if row[0] < step]
        for number, value in fields(event.get(5, b"")):
            if number == 1:
                scalar = dict(fields(value))
                if scalar[1].decode() == TAG:
                    shown.append((step, struct.unpack("<f", scalar[2])[0]))
logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
logged = [(row["step"], struct.unpack("<f", struct.pack("<f", row[TAG]))[0]) for row in logged]
print(len(files), "files show", shown, "logged are", logged)
sys.exit(shown != logged or [step for step, _ in shown] != [1, 2, 3, 4] or len(files) < 2)
