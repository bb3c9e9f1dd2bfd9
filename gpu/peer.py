"""The same steps by PyTorch: what a careful user of it would get, measured in the same run as ours.

A Llama of the same shape with random bf16 weights: fused qkv and gate-up products, `torch.compile` over a
layer, scaled_dot_product_attention over a contiguous KV cache that is updated in place, argmax at the end; decode steps
are replays of a CUDA graph. No paging, no ragged batch, no sampling parameters: less work than ours.

    python3 gpu/peer.py --batch 1,8,64,256 --context 1024,4096 --chunk 512,2048,8192 --out peer.json
    python3 gpu/peer.py --rehearse --out peer.json      a tiny shape on the CPU, without graphs
"""

import argparse
import json
import pathlib
import statistics
import time

import torch
import torch.nn.functional as F

# Llama 3 8B (config.json of the model): the shape that `--dummy llama-3-8b` has.
LLAMA_3_8B = dict(layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, inner=14336, vocab=128256)
TINY = dict(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, inner=128, vocab=256)
THETA, EPS = 500_000.0, 1e-5


def norm(x, scales):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS)).to(x.dtype) * scales


def rotate(x, cos, sin):
    """Turns the halves of each head: x [rows, tokens, heads, head_dim], cos and sin [tokens or rows, ...]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Layer:
    def __init__(self, shape, rows, length, device):
        def matrix(out, inner):
            return torch.randn(out, inner, device=device, dtype=torch.bfloat16) * 0.02

        s = shape
        self.shape = s
        self.qkv = matrix((s["heads"] + 2 * s["kv_heads"]) * s["head_dim"], s["hidden"])
        self.output = matrix(s["hidden"], s["heads"] * s["head_dim"])
        self.gate_up = matrix(2 * s["inner"], s["hidden"])
        self.down = matrix(s["hidden"], s["inner"])
        self.scales = [torch.ones(s["hidden"], device=device, dtype=torch.bfloat16) for _ in range(2)]
        cache = (rows, s["kv_heads"], length, s["head_dim"])
        self.keys = torch.randn(cache, device=device, dtype=torch.bfloat16)
        self.values = torch.randn(cache, device=device, dtype=torch.bfloat16)

    def __call__(self, x, cos, sin, past, tokens):
        s, rows = self.shape, x.shape[0]
        qkv = F.linear(norm(x, self.scales[0]), self.qkv).view(rows, tokens, -1, s["head_dim"])
        q, k, v = qkv.split([s["heads"], s["kv_heads"], s["kv_heads"]], dim=2)
        q, k = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2)
        self.keys[:rows, :, past : past + tokens] = k
        self.values[:rows, :, past : past + tokens] = v.transpose(1, 2)
        keys, values = self.keys[:rows, :, : past + tokens], self.values[:rows, :, : past + tokens]
        # A chunk with a past would need a mask; here chunks begin a prompt.
        a = F.scaled_dot_product_attention(q, keys, values, is_causal=tokens > 1, enable_gqa=True)
        x = x + F.linear(a.transpose(1, 2).reshape(rows, tokens, -1), self.output)
        gate, up = F.linear(norm(x, self.scales[1]), self.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Peer:
    def __init__(self, shape, rows, length, device):
        self.shape, self.device = shape, device
        self.embedding = torch.randn(shape["vocab"], shape["hidden"], device=device, dtype=torch.bfloat16) * 0.02
        self.head = torch.randn(shape["vocab"], shape["hidden"], device=device, dtype=torch.bfloat16) * 0.02
        self.scales = torch.ones(shape["hidden"], device=device, dtype=torch.bfloat16)
        self.layers = [Layer(shape, rows, length, device) for _ in range(shape["layers"])]
        half = shape["head_dim"] // 2
        frequencies = THETA ** (-torch.arange(half, device=device, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(length, device=device, dtype=torch.float64), frequencies)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def step(self, tokens, past):
        """tokens [rows, tokens] from position `past` on: the most likely token after each row."""
        count = tokens.shape[1]
        cos, sin = self.cos[past : past + count, None, :], self.sin[past : past + count, None, :]
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = layer(x, cos, sin, past, count)
        return F.linear(norm(x[:, -1], self.scales), self.head).float().argmax(-1)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call, repeats, device):
    for _ in range(3):
        call()
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def decode(peer, step, batch, context, repeats, device):
    tokens = torch.randint(peer.shape["vocab"], (batch, 1), device=device)
    if device != "cuda":
        return timed(lambda: step(tokens, context), repeats, device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(tokens, context)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(tokens, context)
    return timed(graph.replay, repeats, device)


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--batch", type=numbers, default=[1, 8, 64, 256])
    arguments.add_argument("--context", type=numbers, default=[1024, 4096])
    arguments.add_argument("--chunk", type=numbers, default=[512, 2048, 8192])
    arguments.add_argument("--repeats", type=int, default=20)
    arguments.add_argument("--eager", action="store_true", help="without torch.compile")
    arguments.add_argument("--rehearse", action="store_true")
    arguments.add_argument("--out", required=True)
    chosen = arguments.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if chosen.rehearse:
        shape, chosen.batch, chosen.context, chosen.chunk, chosen.repeats = TINY, [1, 2], [32], [16], 2
        chosen.eager = True
    elif device == "cpu":
        raise SystemExit("PyTorch finds no GPU; --rehearse runs a tiny shape on the CPU")
    else:
        shape = LLAMA_3_8B
    # A run that was cut off goes on.
    before = pathlib.Path(chosen.out)
    steps = json.loads(before.read_text())["steps"] if before.is_file() else []
    done = {(step["kind"], step["size"], step["context"]) for step in steps}

    def note(kind, size, context, seconds):
        steps.append({"kind": kind, "size": size, "context": context, "seconds_median": seconds})
        print(f"{kind} {size} at context {context}: {seconds * 1e3:.3f} ms", flush=True)
        # Written after each, so that a run that is cut off has what it measured.
        record = {
            "peer": "PyTorch, CUDA graphs for decode, scaled_dot_product_attention"
            + ("" if chosen.eager else ", torch.compile"),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "shape": shape,
            "steps": steps,
        }
        with open(chosen.out, "w") as file:
            json.dump(record, file, indent=2)

    with torch.inference_mode():
        for chunk in chosen.chunk:
            if ("prefill", chunk, 0) in done:
                continue
            peer = Peer(shape, 1, chunk, device)
            step = peer.step if chosen.eager else torch.compile(peer.step, dynamic=False)
            tokens = torch.randint(shape["vocab"], (1, chunk), device=device)
            note("prefill", chunk, 0, timed(lambda: step(tokens, 0), chosen.repeats, device))
            del peer, step
        for context in chosen.context:
            for batch in chosen.batch:
                if ("decode", batch, context) in done:
                    continue
                if 2 * 2 * batch * context * shape["layers"] * shape["kv_heads"] * shape["head_dim"] > 100e9:
                    print(f"decode {batch} at context {context}: its KV cache does not fit", flush=True)
                    continue
                peer = Peer(shape, batch, context + 1, device)
                step = peer.step if chosen.eager else torch.compile(peer.step, dynamic=False)
                note("decode", batch, context, decode(peer, step, batch, context, chosen.repeats, device))
                del peer, step
                torch._dynamo.reset()


if __name__ == "__main__":
    main()
