"""Tiny random models of every family, and what Hugging Face transformers computes with them.

    python make.py [--out FOLDER]

writes, beside this script unless told otherwise, one folder a model:

    config.json, *.safetensors, ...   the checkpoint, as `save_pretrained` writes it
    golden.json                       token ids of three texts, and of each, computed by transformers (eager attention, one
                                      text at a time) from the checkpoint that was written:
                                        f32.next    log-probability of each token from the second on, given those before it
                                        f32.top     the two likeliest next tokens at each place, with log-probabilities
                                        f32.greedy  the 24 tokens that follow, each the likeliest
                                        bf16.next   as f32.next, with all of the computation in bf16 (bf16 checkpoints only)
    adapters/NAME/                    LoRA adapters of the model `llama`, as PEFT writes them, each with a golden.json

It needs torch, transformers, peft and tokenizers (each golden.json says with which versions it was made) and about ten seconds. All seeds
are pinned: with the same versions the same files come out.

Weights are wide enough that distributions are far from flat, and scales of norms are far from one, so that any term that is forgotten,
misplaced or rounded too early moves a log-probability by more than the tolerance. `tests/model/hf_golden.rs` compares.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import peft
import tokenizers
import torch
import transformers

TEXT_LENGTHS = (48, 64, 96)
GREEDY_TOKENS = 24
TOP = 2
# Greedy tokens are compared for equality, so the likeliest may not be a matter of rounding: three tolerances ahead, at least.
GAP_MIN = 3e-4


@dataclass
class Golden:
    """One model: its class, its configuration, and how its checkpoint is written."""

    family: str
    config: dict
    dtype: str = "float32"
    seed: int = 0
    # Files of at most this size, so that there are several.
    shard_size: str = "1GB"
    # config.json as transformers 4 wrote it: `rope_theta`, `rope_scaling`, `torch_dtype`.
    old_spelling: bool = False
    tokenizer: bool = False
    adapters: dict = field(default_factory=dict)


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Less than the texts, so that some wavelengths are on each side of both limits.
    "original_max_position_embeddings": 64,
}


def shape(hidden, inner, heads, key_value_heads, vocabulary, tied, **others):
    return dict(
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        num_hidden_layers=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    ) | others


def rope(theta, **others):
    return {"rope_type": "default", "rope_theta": theta} | others


GOLDENS = {
    # The five families, in f32. `llama` is Llama 3.2's kind, and the one with a tokenizer and adapters.
    "llama": Golden(
        "Llama",
        shape(32, 40, 4, 2, 269, True, rope_parameters=LLAMA3_ROPE),
        seed=1,
        tokenizer=True,
        adapters={
            "plain": dict(r=4, lora_alpha=6, target_modules="all-linear"),
            "rslora": dict(r=3, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"]),
        },
    ),
    "llama-2": Golden(
        "Llama",
        shape(16, 28, 4, 4, 67, False, rope_parameters=rope(10000.0), rms_norm_eps=1e-5),
        seed=102,
        shard_size="12KB",
        old_spelling=True,
    ),
    "mistral": Golden(
        "Mistral",
        shape(24, 28, 4, 2, 67, False, head_dim=8, sliding_window=17, rope_parameters=rope(1000.0)),
        seed=3,
    ),
    "qwen2": Golden("Qwen2", shape(24, 36, 4, 2, 131, True, rope_parameters=rope(1000000.0)), seed=4, old_spelling=True),
    "qwen3": Golden("Qwen3", shape(20, 32, 4, 2, 101, True, head_dim=12, rope_parameters=rope(1000000.0)), seed=5),
    # The five families again, in bf16 and in other shapes.
    "llama-bf16": Golden(
        "Llama", shape(32, 44, 4, 1, 127, True, rope_parameters=LLAMA3_ROPE), dtype="bfloat16", seed=6, old_spelling=True
    ),
    "llama-2-bf16": Golden(
        "Llama",
        shape(24, 32, 4, 4, 71, False, rope_parameters=rope(10000.0)),
        dtype="bfloat16",
        seed=7,
        shard_size="8KB",
    ),
    "mistral-bf16": Golden(
        "Mistral",
        shape(28, 40, 4, 2, 79, False, head_dim=12, sliding_window=9, rope_parameters=rope(1000.0)),
        dtype="bfloat16",
        seed=8,
        old_spelling=True,
    ),
    # A window from the second layer on.
    "qwen2-bf16": Golden(
        "Qwen2",
        shape(
            32, 48, 8, 2, 103, True,
            rope_parameters=rope(10000.0), use_sliding_window=True, sliding_window=13, max_window_layers=1,
        ),
        dtype="bfloat16",
        seed=9,
    ),
    "qwen3-bf16": Golden(
        "Qwen3",
        shape(28, 40, 6, 2, 73, False, head_dim=8, rope_parameters=rope(10000.0)),
        dtype="bfloat16",
        seed=10,
        old_spelling=True,
    ),
    # Shapes that no released model has.
    "odd-heads": Golden(
        "Llama",
        shape(18, 26, 9, 3, 59, False, head_dim=6, attention_bias=True, rope_parameters=rope(100.0, rope_type="linear", factor=2.5)),
        seed=11,
    ),
    "odd-single-head": Golden(
        "Qwen3",
        shape(15, 33, 3, 1, 89, True, head_dim=10, attention_bias=True, rope_parameters=rope(10000.0)),
        seed=12,
        old_spelling=True,
    ),
    "odd-f16": Golden(
        "Llama",
        shape(24, 40, 3, 1, 83, False, num_hidden_layers=1, rope_parameters=rope(10000.0)),
        dtype="float16",
        seed=13,
    ),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the folders are written")
    out = arguments.parse_args().out
    torch.set_num_threads(1)
    for name, golden in GOLDENS.items():
        make(golden, out / name)
        print(name, sum(file.stat().st_size for file in (out / name).rglob("*") if file.is_file()), "bytes")


def make(golden, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_checkpoint(golden, folder)
    texts = random_texts(golden)
    if golden.tokenizer:
        texts[0] = write_tokenizer(folder, TEXT_LENGTHS[0])
    write_golden(folder / "golden.json", texts, lambda dtype: load(golden, folder, dtype), golden.dtype)
    for name, settings in golden.adapters.items():
        make_adapter(golden, folder, folder / "adapters" / name, settings, texts)


def write_checkpoint(golden, folder):
    config = getattr(transformers, f"{golden.family}Config")(**golden.config)
    model = getattr(transformers, f"{golden.family}ForCausalLM")(config)
    randomize(model, golden.seed)
    model.to(getattr(torch, golden.dtype)).save_pretrained(folder, max_shard_size=golden.shard_size)
    if golden.old_spelling:
        respell(folder / "config.json")


def randomize(module, seed):
    """Draws every parameter, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(scaled(name, draw))


def scaled(name, draw):
    if "norm" in name:
        return 1.0 + 0.3 * draw
    if name.endswith("bias"):
        return 0.5 * draw
    # The embedding is narrower than the rest, so that where it is the output projection too, a text does not just repeat its last token.
    return (0.2 if "embed_tokens" in name else 0.25) * draw


def respell(path):
    """Turns a config.json of transformers 5 into one of transformers 4."""
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters == {"rope_type": "default"} else parameters
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    config["transformers_version"] = "4.46.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(golden, folder, dtype):
    loader = getattr(transformers, f"{golden.family}ForCausalLM")
    return loader.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()


def random_texts(golden):
    generator = torch.Generator().manual_seed(1000 + golden.seed)
    vocabulary = golden.config["vocab_size"]
    return [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in TEXT_LENGTHS]


def write_tokenizer(folder, length):
    """A byte-level BPE with ten merges, special tokens and a chat template; returns the tokens of a text."""
    text = "the sail is raised before the wind comes, and the ship is ready when it does. " * 2
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=269,
        special_tokens=["<|pad|>", "<|begin|>", "<|end|>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator([text], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<|begin|>", eos_token="<|end|>")
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    fast.save_pretrained(folder)
    return [1, *fast.encode(text, add_special_tokens=False)][:length]


def make_adapter(golden, base, folder, settings, texts):
    model = load(golden, base, "float32")
    config = peft.LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path="goldens/llama", **settings)
    adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(2000 + golden.seed + config.r)
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.peft_config["default"].base_model_name_or_path = "goldens/llama"
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    sort_targets(folder / "adapter_config.json")

    def loaded(dtype):
        return peft.PeftModel.from_pretrained(load(golden, base, dtype), folder).eval()

    write_golden(folder / "golden.json", texts[:2], loaded, golden.dtype)


def sort_targets(path):
    """PEFT keeps the targets as a set, whose order differs from run to run."""
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_golden(path, texts, load_in, checkpoint_dtype):
    exact = load_in("float32")
    entries = [{"tokens": text, "f32": in_f32(exact, text)} for text in texts]
    if checkpoint_dtype == "bfloat16":
        rounded = load_in("bfloat16")
        for entry in entries:
            entry["bf16"] = {"next": next_logprobs(logprobs(rounded, entry["tokens"]), entry["tokens"])}
        report = [noise for entry in entries for noise in differences(entry["bf16"]["next"], entry["f32"]["next"])]
        print(f"  transformers in bf16 is {sum(report) / len(report):.4f} nat from itself in f32, p99 {p99(report):.4f}")
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    path.write_text(lines({"made_with": versions, "texts": entries}))


def in_f32(model, text):
    table = logprobs(model, text)
    top = table.topk(TOP, dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist())
    return {
        "next": next_logprobs(table, text),
        "top": [[[token, round(value, 5)] for token, value in zip(*pair)] for pair in pairs],
        "greedy": greedy(model, text),
    }


def logprobs(model, tokens):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
    return torch.log_softmax(logits.double(), dim=-1)


def next_logprobs(table, text):
    following = torch.tensor(text[1:]).unsqueeze(-1)
    return [round(value, 5) for value in table[:-1].gather(-1, following).squeeze(-1).tolist()]


def greedy(model, text):
    """Without the KV cache of transformers: what a text's continuation is must not depend on it."""
    tokens = list(text)
    for _ in range(GREEDY_TOKENS):
        best = logprobs(model, tokens)[-1].topk(2)
        gap = (best.values[0] - best.values[1]).item()
        assert gap > GAP_MIN, f"the likeliest tokens are {gap} apart: choose another seed"
        tokens.append(best.indices[0].item())
    return tokens[len(text) :]


def differences(first, second):
    return [abs(a - b) for a, b in zip(first, second)]


def p99(values):
    return sorted(values)[len(values) * 99 // 100]


def lines(value):
    """JSON with a line for each list of numbers."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace(',"', ',\n"').replace("{", "{\n").replace("}", "\n}") + "\n"


if __name__ == "__main__":
    main()
