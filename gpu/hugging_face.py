"""Whole models against Hugging Face transformers: random models of three families at a size where every kernel
of the GPU is at work, teacher-forced, through our server as a client sees it.

Prompts are teacher-forced, of lengths that end in the middle of tiles; then texts are generated and what was said of
each token is held against what transformers says of the same text: prompts go through the kernels of prefill, the
generated tokens through those of decode.

transformers computes each model in f32 and in bf16. Ours has to be about as near to its f32 as its own bf16 is: of
|difference of log-probabilities|, the mean and all but a hundredth at most twice transformers' own, and never more than 0.06 and
0.20 nat, the gate of engine/tests/model/hf_golden.rs. And twice the same gives the same bits.

    python3 gpu/hugging_face.py --foresail target/release/foresail --backend cuda --out models.json
"""

import argparse
import json
import pathlib
import re
import subprocess
import tempfile
import urllib.request

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

VOCABULARY = 4099
COMMON = dict(
    vocab_size=VOCABULARY,
    max_position_embeddings=4096,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
    # Wide enough that distributions are not flat, so that a mistake shows.
    initializer_range=0.05,
)
SHAPES = {
    "llama": (
        transformers.LlamaConfig,
        dict(hidden_size=1024, intermediate_size=3584, num_hidden_layers=4, num_attention_heads=8,
             num_key_value_heads=2, head_dim=128, rope_theta=500000.0),
    ),
    "qwen2.5": (
        transformers.Qwen2Config,
        dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=4, num_attention_heads=14,
             num_key_value_heads=2),
    ),
    "qwen3": (
        transformers.Qwen3Config,
        dict(hidden_size=1024, intermediate_size=3072, num_hidden_layers=4, num_attention_heads=16,
             num_key_value_heads=8, head_dim=128),
    ),
}
SMALL = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
MEAN_MAX, P99_MAX = 0.06, 0.20
# What rounding alone may do where transformers happens to round to nothing (nat).
SMALL_CHANGE = 1e-4


def save(name, folder, small):
    kind, sizes = SHAPES[name]
    sizes = {**sizes, **(SMALL if small else {}), **COMMON}
    if kind is transformers.Qwen2Config:
        sizes.pop("head_dim", None)
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(kind(**sizes), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words = {f"t{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="t2"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def expected(model, texts, lengths, dtype, device):
    """The log-probabilities of the tokens of the prompts, and of those after them."""
    model = model.to(device=device, dtype=dtype).eval()
    prompts, generated = [], []
    with torch.inference_mode():
        for text, length in zip(texts, lengths):
            logits = model(torch.tensor([text], device=device)).logits[0].double()
            logprobs = torch.log_softmax(logits, -1)
            next_tokens = torch.tensor(text[1:], device=device)
            told = logprobs[:-1].gather(1, next_tokens[:, None])[:, 0].cpu()
            prompts.append(told[: length - 1])
            generated.append(told[length - 1 :])
    return torch.cat(prompts), torch.cat(generated)


class Served:
    def __init__(self, foresail, folder, backend):
        command = [foresail, "serve", "--model", str(folder), "--backend", backend, "--port", "0",
                   "--access-log", "none", "--max-model-len", "2048", "--no-prefix-caching"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.match(r"ready: (http://\S+)", line)
        if not found:
            self.process.wait()
            raise SystemExit(f"the server did not start: {' '.join(command)}")
        self.url = found.group(1)

    def complete(self, text, count):
        body = {"model": "model", "prompt": text, "max_tokens": count, "temperature": 0, "echo": True,
                "logprobs": 0, "ignore_eos": True}
        request = urllib.request.Request(
            f"{self.url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            told = json.load(answer)["choices"][0]["logprobs"]
        tokens = [int(token.strip()[1:]) for token in told["tokens"]]
        return tokens, torch.tensor(told["token_logprobs"][1:], dtype=torch.float64)

    def answers(self, texts, count):
        """What is said of each prompt, the texts with what was generated, and what is said of that."""
        prompts, whole, generated = [], [], []
        for text in texts:
            tokens, logprobs = self.complete(text, count)
            assert tokens[: len(text)] == text, "the prompt is echoed"
            whole.append(tokens)
            prompts.append(logprobs[: len(text) - 1])
            generated.append(logprobs[len(text) - 1 :])
        return torch.cat(prompts), whole, torch.cat(generated)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def difference(one, other):
    apart = (one - other).abs()
    return {"mean": apart.mean().item(), "p99": apart.quantile(0.99).item(), "max": apart.max().item()}


def judged(what, ours, exact, rounded):
    apart, peer = difference(ours, exact), difference(rounded, exact)
    limits = {"mean": min(MEAN_MAX, 2 * peer["mean"] + SMALL_CHANGE), "p99": min(P99_MAX, 2 * peer["p99"] + SMALL_CHANGE)}
    passed = all(apart[key] <= limit for key, limit in limits.items())
    return {"what": what, "tokens": len(ours), "ours": apart, "transformers_bf16": peer, "limits": limits, "passed": passed}


def compare(name, chosen, device):
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "model"
        folder.mkdir()
        model = save(name, folder, chosen.small)
        random = torch.Generator().manual_seed(7)
        lengths, count = ([3, 17, 64], 8) if chosen.small else ([3, 17, 65, 130, 700, 1500], 70)
        texts = [torch.randint(VOCABULARY, (length,), generator=random).tolist() for length in lengths]
        served = Served(chosen.foresail, folder, chosen.backend)
        try:
            prompts, whole, generated = served.answers(texts, count)
            again = served.answers(texts, count)
        finally:
            served.stop()
        same = torch.equal(prompts, again[0]) and whole == again[1] and torch.equal(generated, again[2])
        exact = expected(model, whole, lengths, torch.float32, device)
        rounded = expected(model, whole, lengths, torch.bfloat16, device)
    parts = [judged("prompts", prompts, exact[0], rounded[0]), judged("generated", generated, exact[1], rounded[1])]
    passed = same and all(part["passed"] for part in parts)
    for part in parts:
        print(f"{name} {part['what']}: mean {part['ours']['mean']:.2e} p99 {part['ours']['p99']:.2e}, transformers' bf16 "
              f"{part['transformers_bf16']['mean']:.2e} {part['transformers_bf16']['p99']:.2e}: "
              f"{'passed' if part['passed'] else 'FAILED'}", flush=True)
    print(f"{name} twice the same: {'passed' if same else 'FAILED'}", flush=True)
    return {"model": name, "parts": parts, "same_again": same, "passed": passed}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--foresail", required=True)
    arguments.add_argument("--backend", default="cuda")
    arguments.add_argument("--small", action="store_true", help="for a rehearsal on a CPU")
    arguments.add_argument("--out", required=True)
    chosen = arguments.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [compare(name, chosen, device) for name in SHAPES]
    record = {"transformers": transformers.__version__, "torch": torch.__version__, "device": device,
              "backend": chosen.backend, "models": models}
    with open(chosen.out, "w") as file:
        json.dump(record, file, indent=2)
    if not all(model["passed"] for model in models):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
