#!/usr/bin/python3
"""Train the demo model: a looped byte-level decoder with a LoRA per visit.

Four layers are visited three times (twelve visits).  A layer's matrices and norm
gains are shared by its visits; each visit has its own rank-8 LoRA on all seven
projections.  Debian's python3-torch and python3-numpy are enough.

Examples
    # train for 100 minutes; run/ gets last.pt, best.pt and loss.csv
    python3 train.py --data tinyshakespeare.txt --out run --minutes 100

    # train for a fixed number of steps instead, whatever the clock says
    python3 train.py --data tinyshakespeare.txt --out run --steps 4000

    # stopped or killed?  continue from run/last.pt; options may be changed
    python3 train.py --data tinyshakespeare.txt --out run --resume --minutes 110

    # nats per byte on the last tenth, of a checkpoint or of an exported file
    python3 train.py --data tinyshakespeare.txt --eval run/best.pt
    python3 train.py --data tinyshakespeare.txt --eval shakespeare.gguf

    # text at temperature 0.8; reference numbers for another engine; loss curve
    python3 train.py --sample shakespeare.gguf --prompt "ROMEO:" --length 400
    python3 train.py --data tinyshakespeare.txt --reference shakespeare.gguf --json expected.json
    python3 train.py --plot run/loss.csv --svg loss.svg --thin loss.csv

How the time is spent well on a small CPU
  * The LoRA is folded once per step: W' = (W + alpha/rank * B A) * norm gain.  The
    token path then has one matrix product per group (q|k|v, o, gate|up, down) and
    the gradients reach W, A, B and the gain through the fold.
  * Two single-threaded workers each take half of a batch; that beats one worker
    with two threads, because the element-wise parts run in parallel as well.
  * OpenBLAS with AVX-512 kernels is twice as fast here as with AVX2 kernels, so
    where the processor has AVX-512 this script asks for the SkylakeX kernels.
"""
import argparse
import csv
import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def tune_environment() -> None:
    """These have to be set before the libraries load, so start over once."""
    want = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000",
            "MALLOC_ARENA_MAX": "1"}            # keep freed memory: page faults are dear
    try:
        with open("/proc/cpuinfo") as f:
            if " avx512vl" in f.read():
                want["OPENBLAS_CORETYPE"] = "SkylakeX"
    except OSError:
        pass
    if "KNIT_DEMO_TUNED" not in os.environ:
        os.environ.update(want, KNIT_DEMO_TUNED="1")
        os.execv(sys.executable, [sys.executable] + sys.argv)


if __name__ == "__main__":
    tune_environment()

import numpy as np                                                 # noqa: E402
import torch                                                       # noqa: E402
import torch.nn.functional as F                                    # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import export_gguf                                                 # noqa: E402

CFG = dict(vocab=256, dim=128, layers=4, heads=4, kv_heads=4, ffn=352, context=256, eps=1e-5, theta=10000.0,
           visits=[0, 1, 2, 3] * 3, rank=8, alpha=16.0)
PROJ = "qkvogud"                                # query key value output gate up down


def proj_shapes(c: dict) -> dict:
    """out, in of every projection"""
    d, f, kv = c["dim"], c["ffn"], c["dim"] // c["heads"] * c["kv_heads"]
    return {"q": (d, d), "k": (kv, d), "v": (kv, d), "o": (d, d), "g": (f, d), "u": (f, d), "d": (d, f)}


def new_model(c: dict, seed: int) -> dict:
    """Parameters by name.  Base matrices are stacked per layer, LoRA per visit."""
    g = torch.Generator().manual_seed(seed)
    L, V, r = c["layers"], len(c["visits"]), c["rank"]
    p = {"emb": torch.randn(c["vocab"], c["dim"], generator=g) * 0.02,
         "output_norm": torch.ones(c["dim"]),
         "attn_norm": torch.ones(L, c["dim"]), "ffn_norm": torch.ones(L, c["dim"])}
    for n, (o, i) in proj_shapes(c).items():
        std = i ** -0.5
        if n in "od":                           # into the residual stream: small
            std /= math.sqrt(2 * V)
        p["w." + n] = torch.randn(L, o, i, generator=g) * std
        p["a." + n] = torch.randn(V, r, i, generator=g) * i ** -0.5
        p["b." + n] = torch.zeros(V, o, r)
    return p


# ------------------------------------------------------------------ forward and backward

class Norm(torch.autograd.Function):
    """RMS norm without the gain (the gain is folded into the next matrix)"""
    @staticmethod
    def forward(ctx, x, eps):
        r = torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
        y = x * r
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    def backward(ctx, dy):
        y, r = ctx.saved_tensors
        return (dy - y * (dy * y).mean(-1, keepdim=True)).mul_(r), None


class SwiGLU(torch.autograd.Function):
    """[gate | up] -> silu(gate) * up"""
    @staticmethod
    def forward(ctx, gu):
        ctx.save_for_backward(gu)
        gate, up = gu.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, dy):
        gu, = ctx.saved_tensors
        gate, up = gu.chunk(2, -1)
        d = torch.empty_like(gu)
        d_gate, d_up = d.chunk(2, -1)
        s = torch.sigmoid(gate)
        a = gate * s
        torch.mul(dy, a, out=d_up)
        torch.mul(torch.addcmul(s, a, 1 - s), dy, out=d_gate)      # silu' = s + silu (1 - s)
        d_gate.mul_(up)
        return d


class Attention(torch.autograd.Function):
    """[q | k | v] of B sequences -> causal attention with interleaved rope"""
    @staticmethod
    def forward(ctx, qkv, rot, mask, B, H, KV):
        N, width = qkv.shape
        T, E, G = N // B, width // (H + 2 * KV), H // KV
        qkv = qkv.view(B, T, H + 2 * KV, E)
        qk = torch.view_as_complex(qkv[:, :, :H + KV].view(B, T, H + KV, E // 2, 2)) * rot
        qk = torch.view_as_real(qk).view(B, T, H + KV, E)
        q = qk[:, :, :H].permute(0, 2, 1, 3).reshape(B * KV, G * T, E)
        k = qk[:, :, H:].permute(0, 2, 1, 3).reshape(B * KV, T, E)
        v = qkv[:, :, H + KV:].permute(0, 2, 1, 3).reshape(B * KV, T, E)
        s = torch.bmm(q, k.transpose(1, 2))
        s.view(B * KV, G, T, T).add_(mask)
        p = torch.softmax(s, -1)
        o = torch.bmm(p, v)
        ctx.save_for_backward(q, k, v, p, rot)
        ctx.shape = B, T, H, KV, G, E
        return o.view(B, H, T, E).permute(0, 2, 1, 3).reshape(N, H * E)

    @staticmethod
    def backward(ctx, do):
        q, k, v, p, rot = ctx.saved_tensors
        B, T, H, KV, G, E = ctx.shape
        do = do.view(B, T, H, E).permute(0, 2, 1, 3).reshape(B * KV, G * T, E)
        dv = torch.bmm(p.transpose(1, 2), do)
        dp = torch.bmm(do, v.transpose(1, 2))
        ds = torch._softmax_backward_data(dp, p, -1, torch.float32)
        dq = torch.bmm(ds, k)
        dk = torch.bmm(ds.transpose(1, 2), q)
        d = torch.empty(B, T, H + 2 * KV, E)
        d[:, :, :H] = dq.view(B, H, T, E).permute(0, 2, 1, 3)
        d[:, :, H:H + KV] = dk.view(B, KV, T, E).permute(0, 2, 1, 3)
        d[:, :, H + KV:] = dv.view(B, KV, T, E).permute(0, 2, 1, 3)
        torch.view_as_complex(d[:, :, :H + KV].view(B, T, H + KV, E // 2, 2)).mul_(rot.conj())
        return d.view(B * T, -1), None, None, None, None, None


_tables: dict = {}


def rope_and_mask(c: dict, T: int):
    key = T, c["theta"], c["dim"], c["heads"]
    if key not in _tables:
        E = c["dim"] // c["heads"]
        ang = torch.arange(T, dtype=torch.float64)[:, None] * c["theta"] ** (
            -torch.arange(0, E, 2, dtype=torch.float64) / E)[None]
        rot = torch.polar(torch.ones_like(ang), ang).to(torch.complex64)[None, :, None, :]
        _tables[key] = rot, torch.full((T, T), -1e30).triu(1)
    return _tables[key]


def fold(c: dict, p: dict) -> dict:
    """Per visit: the base matrix plus its LoRA, times the norm gain before it, and
    for q the attention scale.  Exactly the model's function with far less work."""
    vis = torch.tensor(c["visits"])
    s = c["alpha"] / c["rank"]
    m = {n: p["w." + n][vis] + s * torch.bmm(p["b." + n], p["a." + n]) for n in PROJ}
    scale = (c["dim"] // c["heads"]) ** -0.5
    return {"emb": p["emb"], "head": p["emb"] * p["output_norm"],
            "qkv": torch.cat([m["q"] * scale, m["k"], m["v"]], 1) * p["attn_norm"][vis][:, None, :],
            "o": m["o"],
            "gu": torch.cat([m["g"], m["u"]], 1) * p["ffn_norm"][vis][:, None, :],
            "d": m["d"]}


class Dropout:
    """Bernoulli masks from numpy's fast generator; p in 1/256 steps"""
    def __init__(self, p: float, rng):
        self.threshold, self.rng = round(p * 256), rng
        self.scale = 256 / (256 - self.threshold)

    def add(self, h, o):
        """h + dropout(o)"""
        if not self.threshold:
            return h + o
        n = o.numel()
        bits = self.rng.integers(0, 1 << 64, (n + 7) // 8, dtype=np.uint64)
        keep = torch.from_numpy(bits.view(np.uint8)[:n]).ge(self.threshold).view(o.shape)
        return torch.addcmul(h, o, keep.to(torch.float32), value=self.scale)


def forward(c: dict, w: dict, x, drop=None):
    """Logits [B*T, vocab].  w holds lists (one matrix per visit) of folded weights."""
    B, T = x.shape
    rot, mask = rope_and_mask(c, T)
    h = F.embedding(x.reshape(-1), w["emb"])
    drop = drop or Dropout(0, None)
    if drop.threshold:
        h = drop.add(torch.zeros_like(h), h)
    for v in range(len(c["visits"])):
        a = Attention.apply(Norm.apply(h, c["eps"]) @ w["qkv"][v].t(), rot, mask, B, c["heads"], c["kv_heads"])
        h = drop.add(h, a @ w["o"][v].t())
        f = SwiGLU.apply(Norm.apply(h, c["eps"]) @ w["gu"][v].t())
        h = drop.add(h, f @ w["d"][v].t())
    return Norm.apply(h, c["eps"]) @ w["head"].t()


def as_lists(w: dict) -> dict:
    return {k: t if t.dim() == 2 else list(t.unbind(0)) for k, t in w.items()}


def plain_logits(c: dict, p: dict, tokens):
    """The model written out without any folding, for one sequence: the reference."""
    E, H, KV = c["dim"] // c["heads"], c["heads"], c["kv_heads"]
    T = len(tokens)
    ang = torch.arange(T, dtype=torch.float64)[:, None] * c["theta"] ** (
        -torch.arange(0, E, 2, dtype=torch.float64) / E)[None]
    cos, sin = ang.cos().float()[:, None], ang.sin().float()[:, None]

    def rms(x, gain):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + c["eps"]) * gain

    def rope(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    h = p["emb"][torch.as_tensor(tokens)]
    for v, l in enumerate(c["visits"]):
        def lin(n, x):
            return x @ p["w." + n][l].t() + c["alpha"] / c["rank"] * (x @ p["a." + n][v].t()) @ p["b." + n][v].t()
        x = rms(h, p["attn_norm"][l])
        q = rope(lin("q", x).view(T, H, E))
        k = rope(lin("k", x).view(T, KV, E)).repeat_interleave(H // KV, 1)
        val = lin("v", x).view(T, KV, E).repeat_interleave(H // KV, 1)
        s = torch.einsum("ihe,jhe->hij", q, k) * E ** -0.5
        s = s.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf).softmax(-1)
        h = h + lin("o", torch.einsum("hij,jhe->ihe", s, val).reshape(T, H * E))
        x = rms(h, p["ffn_norm"][l])
        h = h + lin("d", F.silu(lin("g", x)) * lin("u", x))
    return rms(h, p["output_norm"]) @ p["emb"].t()


# ------------------------------------------------------------------ data and evaluation

def load_bytes(path: str):
    """training bytes (first nine tenths), validation bytes (last tenth)"""
    with open(path, "rb") as f:
        data = np.frombuffer(f.read(), np.uint8)
    cut = len(data) * 9 // 10
    return data[:cut], data[cut:]


class Batches:
    """Windows of T+1 bytes: every epoch cuts the text at a new offset and shuffles."""
    def __init__(self, data, T: int, seed: int):
        self.data, self.T, self.seed = data, T, seed
        self.epoch, self.at, self.starts = -1, 0, []

    def next_epoch(self, epoch: int):
        self.epoch, self.at = epoch, 0
        rng = np.random.default_rng([self.seed, self.T, epoch])
        first = int(rng.integers(0, self.T))
        self.starts = rng.permutation(np.arange(first, len(self.data) - self.T - 1, self.T))

    def take(self, n: int):
        if self.epoch < 0 or self.at + n > len(self.starts):
            self.next_epoch(self.epoch + 1)
        rows = [self.data[s:s + self.T + 1] for s in self.starts[self.at:self.at + n]]
        self.at += n
        b = torch.from_numpy(np.stack(rows).astype(np.int64))
        return b[:, :-1], b[:, 1:]

    def state(self):
        return self.T, self.epoch, self.at

    def restore(self, state):
        if state[0] == self.T and state[1] >= 0:
            self.next_epoch(state[1])
            self.at = state[2]


def evaluate(c: dict, p: dict, val, pool) -> dict:
    """Mean nats per byte: consecutive windows of context bytes that do not overlap,
    each from a fresh context; the first byte of a window is context only.  A last,
    shorter window of two bytes or more counts too."""
    n = c["context"]
    windows = [val[i:i + n] for i in range(0, len(val), n)]
    windows = [w for w in windows if len(w) > 1]
    full = [w for w in windows if len(w) == n]
    groups = [full[i:i + 8] for i in range(0, len(full), 8)] + [[w] for w in windows if len(w) != n]
    with torch.no_grad():
        w = as_lists(fold(c, p))

        def nats(group):
            with torch.no_grad():
                b = torch.from_numpy(np.stack(group).astype(np.int64))
                lo = forward(c, w, b[:, :-1])
                return F.cross_entropy(lo, b[:, 1:].reshape(-1), reduction="sum").double().item()
        total = sum(pool.map(nats, groups))
    predicted = sum(len(x) - 1 for x in windows)
    return dict(nats=total / predicted, windows=len(windows), predicted=predicted)


def load_model(path: str):
    """(cfg, weights) of a checkpoint or of a GGUF"""
    if path.endswith(".gguf"):
        c, p = export_gguf.gguf_to_model(path)
        return c, {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in p.items()}
    ck = torch.load(path, map_location="cpu")
    return ck["cfg"], ck["weights"]


def sample(c: dict, p: dict, prompt: bytes, length: int, temperature: float, seed: int) -> bytes:
    g = torch.Generator().manual_seed(seed)
    out = list(prompt)
    with torch.no_grad():
        w = as_lists(fold(c, p))
        for _ in range(length):
            x = torch.tensor([out[-c["context"]:]])
            lo = forward(c, w, x)[-1] / temperature
            out.append(int(torch.multinomial(lo.softmax(-1), 1, generator=g)))
    return bytes(out)


# ------------------------------------------------------------------ optimizer

def newton_schulz(x, steps: int = 5):
    """Bring every matrix of the stack near to U V^T of its singular value decomposition"""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.transpose(-2, -1)
    x = x.contiguous()
    for _ in range(steps):
        s = torch.bmm(x, x.transpose(-2, -1))
        x = a * x + torch.bmm(torch.baddbmm(s, s, s, beta=b, alpha=c), x)
    return x.transpose(-2, -1) if flip else x


class Optimizer:
    """Muon for the base matrices (and, if asked, the LoRA), AdamW for the rest"""
    def __init__(self, p: dict, args):
        self.p, self.args, self.t = p, args, 0
        self.m = {k: torch.zeros_like(v) for k, v in p.items()}
        self.v = {k: torch.zeros_like(v) for k, v in p.items() if not self.is_muon(k)}

    def is_muon(self, name: str) -> bool:
        return self.args.opt == "muon" and (name[:2] == "w." or (name[:2] in ("a.", "b.") and self.args.lora_muon))

    def update(self, name: str, g, factor: float) -> None:
        a, w, m = self.args, self.p[name], self.m[name]
        if self.is_muon(name):
            m.mul_(a.momentum).add_(g)
            u = newton_schulz(g.add(m, alpha=a.momentum))
            lr = (a.muon_lr if name[0] == "w" else a.lora_lr) * factor
            w.mul_(1 - lr * a.muon_wd)
            w.add_(u, alpha=-lr * math.sqrt(max(1, w.shape[-2] / w.shape[-1])))
            return
        b1, b2 = 0.9, 0.98
        lr = (a.lora_lr if name[:2] in ("a.", "b.") else a.emb_lr if name == "emb" else a.lr) * factor
        v = self.v[name]
        m.lerp_(g, 1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        if "norm" not in name:
            w.mul_(1 - lr * a.wd)
        w.addcdiv_(m, (v / (1 - b2 ** self.t)).sqrt_().add_(1e-8), value=-lr / (1 - b1 ** self.t))

    def step(self, grads: dict, factor: float, pool) -> None:
        self.t += 1
        norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in grads.values()))
        clip = min(1.0, self.args.clip / (norm + 1e-12))
        list(pool.map(lambda k: self.update(k, grads[k].mul_(clip), factor), sorted(grads, key=lambda k: -grads[k].numel())))

    def state(self):
        return {"t": self.t, "m": self.m, "v": self.v}

    def restore(self, s):
        self.t = s["t"]
        for k in self.m:
            self.m[k].copy_(s["m"][k])
        for k in self.v:
            if k in s["v"]:
                self.v[k].copy_(s["v"][k])


# ------------------------------------------------------------------ training

def gradients(c: dict, p: dict, x, y, args, step: int, pool):
    """Loss and gradients of one batch; the workers share it in equal parts."""
    live = {k: v.detach().requires_grad_() for k, v in p.items()}
    folded = fold(c, live)
    T = x.shape[1]
    micro = max(1, args.micro_tokens // T)
    chunks = [(i, x[i:i + micro], y[i:i + micro]) for i in range(0, len(x), micro)]

    def work(worker: int):
        w = as_lists({k: v.detach() for k, v in folded.items()})
        leaves = {k: [t.requires_grad_() for t in v] if isinstance(v, list) else v.requires_grad_()
                  for k, v in w.items()}
        total = 0.0
        for i, cx, cy in chunks[worker::args.workers]:
            drop = Dropout(args.dropout, np.random.Generator(np.random.SFC64([args.seed, step, i])))
            loss = F.cross_entropy(forward(c, leaves, cx, drop), cy.reshape(-1), reduction="sum") / y.numel()
            loss.backward()
            total += loss.item()
        grads = {k: torch.stack([t.grad for t in v]) if isinstance(v, list) else v.grad for k, v in leaves.items()}
        return total, grads

    parts = list(pool.map(work, range(min(args.workers, len(chunks)))))
    for _, g in parts[1:]:
        for k in g:
            parts[0][1][k].add_(g[k])
    names = list(folded)
    torch.autograd.backward([folded[k] for k in names], [parts[0][1][k] for k in names])
    return sum(l for l, _ in parts), {k: v.grad for k, v in live.items()}


def atomic_save(obj, path: str) -> None:
    torch.save(obj, path + ".tmp")
    os.replace(path + ".tmp", path)


def train(args) -> int:
    c = dict(CFG, kv_heads=args.kv_heads)
    data, val = load_bytes(args.data)
    os.makedirs(args.out, exist_ok=True)
    last, best_path, log_path = (os.path.join(args.out, n) for n in ("last.pt", "best.pt", "loss.csv"))
    pool = ThreadPoolExecutor(args.workers)

    p = new_model(c, args.seed)
    opt = Optimizer(p, args)
    ema = {k: v.clone() for k, v in p.items()}
    step, tokens, spent, best, batch_state = 0, 0, 0.0, math.inf, None
    if args.resume and os.path.exists(last):
        ck = torch.load(last, map_location="cpu")
        c = ck["cfg"]
        for k in p:
            p[k].copy_(ck["raw"][k])
            ema[k].copy_(ck["weights"][k])
        opt.restore(ck["opt"])
        step, tokens, spent, best, batch_state = (ck[k] for k in ("step", "tokens", "seconds", "best", "batches"))
        with open(log_path) as f:                # drop what came after the checkpoint
            rows = [r for r in csv.reader(f) if r[0] == "step" or int(r[0]) <= step]
        with open(log_path, "w", newline="") as f:
            csv.writer(f).writerows(rows)
        print("resumed at step %d, %.2f M tokens, %.0f s" % (step, tokens / 1e6, spent), flush=True)
    else:
        with open(log_path, "w", newline="") as f:
            csv.writer(f).writerow(["step", "tokens", "seconds", "train", "val", "lr"])
    if step == 0:
        print("%d parameters" % sum(v.numel() for v in p.values()), flush=True)

    def progress() -> float:
        """0..1, by the clock or by the step count"""
        return step / args.steps if args.steps else spent / (60 * args.minutes)

    def checkpoint() -> None:
        atomic_save(dict(cfg=c, weights=ema, raw=p, opt=opt.state(), step=step, tokens=tokens, seconds=spent,
                         best=best, batches=batches.state(), args=vars(args)), last)

    T, batches = 0, None
    run_loss, run_n, last_eval, last_save = 0.0, 0, spent, time.time()
    clock = time.time()
    while True:
        done = progress()
        if done >= 1:
            break
        want_T = c["context"] if done >= args.long_from else args.short
        if want_T != T:
            T, batches = want_T, Batches(data, want_T, args.seed)
            if batch_state:
                batches.restore(batch_state)
                batch_state = None
        x, y = batches.take(args.batch_tokens // T)
        factor = min(1.0, (step + 1) / args.warmup)
        if done > 1 - args.decay:
            factor *= max(args.final, (1 - done) / args.decay)
        loss, grads = gradients(c, p, x, y, args, step, pool)
        opt.step(grads, factor, pool)
        keep = min(args.ema, (1 + step) / (10 + step))
        for k in p:
            ema[k].lerp_(p[k], 1 - keep)
        step += 1
        tokens += x.numel()
        run_loss, run_n = run_loss + loss, run_n + 1
        now = time.time()
        spent, clock = spent + now - clock, now
        if spent - last_eval >= args.eval_every or step == 1 or progress() >= 1:
            r = evaluate(c, ema, val, pool)["nats"]
            if progress() >= 1:
                raw = evaluate(c, p, val, pool)["nats"]
                print("raw weights %.4f, averaged weights %.4f" % (raw, r))
                if raw < r:
                    r = raw
                    for k in p:
                        ema[k].copy_(p[k])
            train_loss = run_loss / run_n
            run_loss, run_n, last_eval = 0.0, 0, spent
            print("step %6d  %8.3f Mtok  %6.0f s  train %.4f  val %.4f  lr x%.3f  %s  done %.3f" % (
                step, tokens / 1e6, spent, train_loss, r, factor, time.strftime("%H:%M:%S"), done), flush=True)
            with open(log_path, "a", newline="") as f:
                csv.writer(f).writerow([step, tokens, "%.0f" % spent, "%.4f" % train_loss, "%.4f" % r, "%.4g" % factor])
            if r < best:
                best = r
                atomic_save(dict(cfg=c, weights=ema, step=step, tokens=tokens, seconds=spent, best=best,
                                 args=vars(args)), best_path)
            checkpoint()
            now = time.time()
            spent, clock = spent + now - clock, now
    checkpoint()
    print("best %.4f" % best)
    return 0


# ------------------------------------------------------------------ curve, reference

def plot(log_path: str, svg: str, thin: str) -> None:
    with open(log_path) as f:
        rows = list(csv.DictReader(f))
    rows = [r for r in rows if int(r["step"]) > 1]
    keep = max(1, math.ceil(len(rows) / 190))
    thinned = [r for i, r in enumerate(rows) if i % keep == 0 or i == len(rows) - 1]
    if thin:
        with open(thin, "w", newline="") as f:
            w = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
            w.writeheader()
            w.writerows(thinned)
    if not svg:
        return
    W, H, left, right, top, bottom = 640, 300, 50, 20, 20, 40
    xs = [int(r["tokens"]) / 1e6 for r in thinned]
    lo, hi = 1.0, 2.4
    xmax = max(xs)

    def at(x, y):
        y = min(hi, max(lo, y))
        return "%.1f,%.1f" % (left + (W - left - right) * x / xmax, top + (H - top - bottom) * (hi - y) / (hi - lo))

    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' % (W, H),
           '<rect width="%d" height="%d" fill="white"/>' % (W, H)]
    for i in range(8):
        y = lo + 0.2 * i
        a, b = at(0, y).split(","), at(xmax, y).split(",")
        out.append('<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="#ddd"/>' % (*a, *b))
        out.append('<text x="%d" y="%.1f" text-anchor="end">%.1f</text>' % (left - 6, float(a[1]) + 4, y))
    tick = 10 if xmax > 30 else 5 if xmax > 10 else 1
    for i in range(0, int(xmax) + 1, tick):
        x, y = at(i, lo).split(",")
        out.append('<text x="%s" y="%d" text-anchor="middle">%d</text>' % (x, H - bottom + 16, i))
    out.append('<text x="%d" y="%d" text-anchor="middle">million bytes seen</text>' % ((W + left) // 2, H - 6))
    for i, (col, colour, label) in enumerate((("train", "#999", "training (with dropout), nats per byte"),
                                              ("val", "#06c", "last tenth, nats per byte"))):
        out.append('<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>' % (
            colour, " ".join(at(x, float(r[col])) for x, r in zip(xs, thinned))))
        out.append('<text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>' % (W - right, top + 14 + 16 * i, colour, label))
    out.append("</svg>")
    with open(svg, "w") as f:
        f.write("\n".join(out) + "\n")


def reference(path: str, val, json_path: str, raw_path: str, pool) -> None:
    """Numbers another engine can be held against."""
    c, p = load_model(path)
    r = evaluate(c, p, val, pool)
    prompt = bytes(val[:16])
    with torch.no_grad():
        lo = plain_logits(c, p, list(prompt))
        fast = forward(c, as_lists(fold(c, p)), torch.tensor([list(prompt)]))
    print("folded and plain logits differ by at most %.2g" % float((lo - fast).abs().max()))
    top = lo[-1].topk(5)
    d = {"val_nats_per_byte": round(r["nats"], 6), "windows": r["windows"], "bytes_predicted": r["predicted"],
         "prompt": prompt.decode("latin-1"),
         "logits_last_top5": [{"byte": int(i), "logit": round(float(v), 5)} for v, i in zip(*top)]}
    if json_path:
        with open(json_path, "w") as f:
            f.write(json.dumps(d, indent=1) + "\n")
    if raw_path:
        lo.numpy().astype("<f4").tofile(raw_path)
    print(json.dumps(d))


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", default="tinyshakespeare.txt", help="text file; the last tenth is for validation")
    ap.add_argument("--out", default="run", help="folder for checkpoints and loss.csv")
    ap.add_argument("--resume", action="store_true", help="continue from OUT/last.pt if it exists")
    ap.add_argument("--minutes", type=float, default=100, help="length of the schedule in training time (%(default)s)")
    ap.add_argument("--steps", type=int, default=0, help="length of the schedule in steps, instead of minutes")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--workers", type=int, default=2, help="threads, each with its share of a batch (%(default)s)")
    ap.add_argument("--batch-tokens", type=int, default=4096, help="bytes per step (%(default)s)")
    ap.add_argument("--micro-tokens", type=int, default=2048, help="bytes a worker runs at once (%(default)s)")
    ap.add_argument("--kv-heads", type=int, default=4)
    ap.add_argument("--short", type=int, default=128, help="positions in the first part (%(default)s)")
    ap.add_argument("--long-from", type=float, default=0.3, help="from this part on: full context (%(default)s)")
    ap.add_argument("--opt", choices=("muon", "adamw"), default="muon")
    ap.add_argument("--muon-lr", type=float, default=0.02)
    ap.add_argument("--muon-wd", type=float, default=0.1)
    ap.add_argument("--momentum", type=float, default=0.95)
    ap.add_argument("--lora-muon", type=int, default=0, help="1: Muon for the LoRA too")
    ap.add_argument("--lora-lr", type=float, default=3e-3)
    ap.add_argument("--emb-lr", type=float, default=3e-3)
    ap.add_argument("--lr", type=float, default=3e-3, help="AdamW: norm gains, and matrices with --opt adamw")
    ap.add_argument("--wd", type=float, default=0.1, help="AdamW weight decay (not on norm gains)")
    ap.add_argument("--warmup", type=int, default=100, help="steps of linear warm-up")
    ap.add_argument("--decay", type=float, default=0.5, help="last part of the schedule with linear decay")
    ap.add_argument("--final", type=float, default=0.0, help="least learning rate factor")
    ap.add_argument("--dropout", type=float, default=0.1, help="on embedding and residual branches")
    ap.add_argument("--clip", type=float, default=1.0, help="largest gradient norm")
    ap.add_argument("--ema", type=float, default=0.998, help="averaging of weights, per step")
    ap.add_argument("--eval-every", type=float, default=60, help="seconds between evaluations")
    ap.add_argument("--eval", metavar="FILE", help="evaluate a checkpoint or GGUF on the last tenth")
    ap.add_argument("--sample", metavar="FILE", help="generate text")
    ap.add_argument("--prompt", default="ROMEO:\n")
    ap.add_argument("--length", type=int, default=400)
    ap.add_argument("--temperature", type=float, default=0.8)
    ap.add_argument("--reference", metavar="FILE", help="write reference numbers (--json, --raw)")
    ap.add_argument("--json", default="", help="summary file for --reference")
    ap.add_argument("--raw", default="", help="file for the logits of the first 16 positions, f32 [16,256]")
    ap.add_argument("--plot", metavar="CSV", help="draw a loss curve (--svg) and thin the table (--thin)")
    ap.add_argument("--svg", default="")
    ap.add_argument("--thin", default="")
    args = ap.parse_args()
    torch.set_num_threads(1)
    if args.plot:
        plot(args.plot, args.svg, args.thin)
        return 0
    if args.sample:
        c, p = load_model(args.sample)
        out = sample(c, p, args.prompt.encode(), args.length, args.temperature, args.seed)
        sys.stdout.write(out.decode("latin-1") + "\n")
        return 0
    if args.eval:
        c, p = load_model(args.eval)
        t = time.time()
        r = evaluate(c, p, load_bytes(args.data)[1], ThreadPoolExecutor(args.workers))
        print("%.6f nats per byte, %d windows, %d bytes predicted, %.1f s" % (
            r["nats"], r["windows"], r["predicted"], time.time() - t))
        return 0
    if args.reference:
        reference(args.reference, load_bytes(args.data)[1], args.json, args.raw, ThreadPoolExecutor(args.workers))
        return 0
    return train(args)


if __name__ == "__main__":
    sys.exit(main())
