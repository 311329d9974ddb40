"""Reads and writes safetensors files of 32-bit floats: name -> (shape, list of numbers)."""
import json
import struct


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    (size,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8:8 + size]), {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in tensor["data_offsets"])
        code = {"F32": "f", "I64": "q"}[tensor["dtype"]]
        values = struct.unpack(f"<{(end - begin) // struct.calcsize(code)}{code}", data[begin:end])
        tensors[name] = (tensor["shape"], list(values))
    return tensors


def write(path, tensors):
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (shape, values) in tensors.items():
        parts.append(struct.pack(f"<{len(values)}f", *values))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(parts[-1])]}
        offset += len(parts[-1])
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def largest_difference(first, second, name):
    return max(abs(a - b) for a, b in zip(read(first)[name][1], read(second)[name][1]))
