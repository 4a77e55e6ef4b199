#!/usr/bin/env python3
"""GGUF v3 for the demo model: a small writer and a small reader, numpy only.

Examples
    python3 export_gguf.py run/best.pt shakespeare.gguf     # checkpoint -> GGUF
    python3 export_gguf.py --list shakespeare.gguf          # what is inside

The layout is the one GGUF prescribes: header, metadata, tensor table, then the
tensor data, each tensor at a multiple of 32 bytes.  Everything little-endian.
Matrices are stored as F16 and norm gains as F32.  GGUF writes dimensions with
the contiguous one first, so a matrix of shape [out, in] is listed as [in, out].
"""
import argparse
import os
import struct
import sys

import numpy as np

ALIGN = 32
U32, I32, F32, BOOL, STR, ARR, U64 = 4, 5, 6, 7, 8, 9, 10
SCALAR = {0: "<B", 1: "<b", 2: "<H", 3: "<h", U32: "<I", I32: "<i", F32: "<f",
          BOOL: "<?", U64: "<Q", 11: "<q", 12: "<d"}
TENSOR_F32, TENSOR_F16 = 0, 1
PROJECTIONS = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
               "g": "ffn_gate", "u": "ffn_up", "d": "ffn_down"}


# ---------------------------------------------------------------- writing

def _string(s: str) -> bytes:
    b = s.encode("utf-8")
    return struct.pack("<Q", len(b)) + b


def _value(kind: int, v) -> bytes:
    if kind == STR:
        return _string(v)
    if kind == ARR:                              # (element kind, list)
        inner, items = v
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, x) for x in items)
    return struct.pack(SCALAR[kind], v)


def write_gguf(path: str, meta: list, tensors: list) -> int:
    """meta: (key, kind, value) triples; tensors: (name, array) pairs, where the
    array's type (float16 or float32) is the stored type.  The file appears under
    its name only when it is complete.  Returns its size in bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    for key, kind, v in meta:
        head += _string(key) + struct.pack("<I", kind) + _value(kind, v)
    offset, blobs = 0, []
    for name, a in tensors:
        kind = {"float16": TENSOR_F16, "float32": TENSOR_F32}[a.dtype.name]
        dims = a.shape[::-1]
        head += _string(name) + struct.pack("<I", len(dims))
        head += struct.pack("<%dQ" % len(dims), *dims) + struct.pack("<IQ", kind, offset)
        blob = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes()
        blob += bytes(-len(blob) % ALIGN)
        blobs.append(blob)
        offset += len(blob)
    head += bytes(-len(head) % ALIGN)
    tmp = path + ".tmp"
    with open(tmp, "wb") as f:
        f.write(head)
        f.writelines(blobs)
        f.flush()
        os.fsync(f.fileno())
    os.replace(tmp, path)
    return os.path.getsize(path)


# ---------------------------------------------------------------- reading

def read_gguf(path: str):
    """-> (metadata dict, {name: float32 array in [out, in] order})"""
    with open(path, "rb") as f:
        buf = f.read()
    pos = 0

    def take(fmt):
        nonlocal pos
        v = struct.unpack_from(fmt, buf, pos)
        pos += struct.calcsize(fmt)
        return v if len(v) > 1 else v[0]

    def string():
        nonlocal pos
        n = take("<Q")
        s = buf[pos:pos + n].decode("utf-8")
        pos += n
        return s

    def value(kind):
        if kind == STR:
            return string()
        if kind == ARR:
            inner, n = take("<IQ")
            return [value(inner) for _ in range(n)]
        return take(SCALAR[kind])

    if buf[:4] != b"GGUF":
        raise ValueError("%s: not a GGUF file" % path)
    pos = 4
    version, n_tensors, n_meta = take("<IQQ")
    if version != 3:
        raise ValueError("%s: GGUF version %d, expected 3" % (path, version))
    meta = {}
    for _ in range(n_meta):
        key = string()
        meta[key] = value(take("<I"))
    table = []
    for _ in range(n_tensors):
        name = string()
        n_dims = take("<I")
        dims = [take("<Q") for _ in range(n_dims)]
        kind, offset = take("<IQ")
        table.append((name, dims, kind, offset))
    pos += -pos % meta.get("general.alignment", ALIGN)
    out = {}
    for name, dims, kind, offset in table:
        dt = {TENSOR_F32: "<f4", TENSOR_F16: "<f2"}[kind]
        n = int(np.prod(dims))
        a = np.frombuffer(buf, dt, n, pos + offset)
        out[name] = a.astype(np.float32).reshape(dims[::-1])
    return meta, out


# ------------------------------------------------- the model <-> the file

def model_to_gguf(path: str, cfg: dict, p: dict) -> int:
    """cfg and p as train.py keeps them: p maps names to float32 arrays, base
    matrices stacked per layer, LoRA matrices stacked per visit."""
    meta = [
        ("general.architecture", STR, "knit"),
        ("general.name", STR, "knit demo: looped Shakespeare, bytes"),
        ("general.description", STR,
         "Byte-level looped decoder with a LoRA per visit, trained from scratch on the first nine "
         "tenths of tinyshakespeare (the text is in the public domain)."),
        ("general.file_type", U32, 1),
        ("knit.context_length", U32, cfg["context"]),
        ("knit.embedding_length", U32, cfg["dim"]),
        ("knit.block_count", U32, cfg["layers"]),
        ("knit.feed_forward_length", U32, cfg["ffn"]),
        ("knit.attention.head_count", U32, cfg["heads"]),
        ("knit.attention.head_count_kv", U32, cfg["kv_heads"]),
        ("knit.attention.layer_norm_rms_epsilon", F32, cfg["eps"]),
        ("knit.rope.freq_base", F32, cfg["theta"]),
        ("knit.rope.dimension_count", U32, cfg["dim"] // cfg["heads"]),
        ("knit.rope.layout", STR, "interleaved"),
        ("knit.vocab_size", U32, cfg["vocab"]),
        ("knit.visits", ARR, (U32, list(cfg["visits"]))),
        ("knit.lora.rank", U32, cfg["rank"]),
        ("knit.lora.alpha", F32, cfg["alpha"]),
        ("tokenizer.ggml.model", STR, "bytes"),
    ]
    t = [("token_embd.weight", p["emb"]), ("output_norm.weight", p["output_norm"])]
    for l in range(cfg["layers"]):
        for norm in ("attn_norm", "ffn_norm"):
            t.append(("blk.%d.%s.weight" % (l, norm), p[norm][l]))
        for short, name in PROJECTIONS.items():
            t.append(("blk.%d.%s.weight" % (l, name), p["w." + short][l]))
    for v in range(len(cfg["visits"])):
        for short, name in PROJECTIONS.items():
            t.append(("visit.%d.%s.lora_a" % (v, name), p["a." + short][v]))
            t.append(("visit.%d.%s.lora_b" % (v, name), p["b." + short][v]))
    t = [(n, np.asarray(a, np.float32).astype(np.float32 if a.ndim == 1 else np.float16)) for n, a in t]
    return write_gguf(path, meta, t)


def gguf_to_model(path: str):
    """The inverse of model_to_gguf: (cfg, p) with f16 widened to f32."""
    m, t = read_gguf(path)
    cfg = dict(context=m["knit.context_length"], dim=m["knit.embedding_length"], layers=m["knit.block_count"],
               ffn=m["knit.feed_forward_length"], heads=m["knit.attention.head_count"],
               kv_heads=m["knit.attention.head_count_kv"], eps=m["knit.attention.layer_norm_rms_epsilon"],
               theta=m["knit.rope.freq_base"], vocab=m["knit.vocab_size"], visits=m["knit.visits"],
               rank=m["knit.lora.rank"], alpha=m["knit.lora.alpha"])
    p = {"emb": t["token_embd.weight"], "output_norm": t["output_norm.weight"]}
    for norm in ("attn_norm", "ffn_norm"):
        p[norm] = np.stack([t["blk.%d.%s.weight" % (l, norm)] for l in range(cfg["layers"])])
    for short, name in PROJECTIONS.items():
        p["w." + short] = np.stack([t["blk.%d.%s.weight" % (l, name)] for l in range(cfg["layers"])])
        for ab in "ab":
            p[ab + "." + short] = np.stack([t["visit.%d.%s.lora_%s" % (v, name, ab)]
                                            for v in range(len(cfg["visits"]))])
    return cfg, p


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("source", help="checkpoint (.pt), or a GGUF with --list")
    ap.add_argument("target", nargs="?", help="GGUF to write")
    ap.add_argument("--list", action="store_true", help="print metadata and tensors of a GGUF")
    args = ap.parse_args()
    if args.list:
        meta, tensors = read_gguf(args.source)
        for k, v in meta.items():
            print("%-42s %s" % (k, v))
        for k, v in tensors.items():
            print("%-42s %s" % (k, list(v.shape)))
        return 0
    if not args.target:
        ap.error("the GGUF to write is missing")
    import torch
    ck = torch.load(args.source, map_location="cpu")
    n = model_to_gguf(args.target, ck["cfg"], {k: v.numpy() for k, v in ck["weights"].items()})
    print("%s: %d bytes" % (args.target, n))
    return 0


if __name__ == "__main__":
    sys.exit(main())
