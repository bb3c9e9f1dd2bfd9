"""The results of gpu/run.sh as a table: each step beside its floor, what it must take, and PyTorch's.

    python3 gpu/table.py gpu/results/2026-11-21-nvidia-h200
"""

import json
import pathlib
import sys

# One H200, Llama-3-8B in bf16, everything included (ms): what it must take at most, and what is aimed at. The floor is
# computed from the ceilings of the same run.
TARGETS = {
    ("decode", 1, 1024): (4.47, 3.87),
    ("decode", 64, 1024): (6.8, 6.1),
    ("decode", 256, 1024): (14.4, 13.1),
    ("prefill", 2048, 0): (42.5, 40.5),
    ("prefill", 8192, 0): (190.0, 182.0),
}


def read(folder, name):
    file = folder / name
    return json.loads(file.read_text()) if file.is_file() and file.stat().st_size else None


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def steps(bench):
    for step in bench["decode"]:
        yield "decode", step["batch"], step["context"], step["figures"], step["running"]
    for step in bench["prefill"]:
        yield "prefill", step["chunk"], step["context"], step["figures"], None


def measured(folder, names, peers, targets):
    row("step", "size", "context", "ms", "going on, ms", "idle", "floor ms", "of floor", "GB/s", "TFLOP/s", "must", "aim", "PyTorch ms", "")
    row(*["---"] * 14)
    for name in names:
        bench = read(folder, name)
        for kind, size, context, figures, running in steps(bench) if bench else ():
            took = figures["seconds_median"] * 1e3
            going = running["seconds_mean"] * 1e3 if running else None
            idle = running["idle_share"] if running else None
            must, aim = targets.get((kind, size, context), (None, None))
            peer = peers.get((kind, size, context))
            verdict = "" if must is None else "aim met" if took <= aim else "met" if took <= must else "MISSED"
            row(
                kind, str(size), str(context), f"{took:.2f}", f"{going:.2f}" if going else "",
                "" if idle is None else f"{idle:.1%}", f"{figures['floor_seconds'] * 1e3:.2f}", f"{figures['floor_share']:.0%}",
                f"{figures['bytes_per_s'] / 1e9:.0f}", f"{figures['flops_per_s'] / 1e12:.1f}",
                f"{must}" if must else "", f"{aim}" if aim else "", f"{peer * 1e3:.2f}" if peer else "", verdict,
            )
    print()


def main():
    folder = pathlib.Path(sys.argv[1])
    devices = read(folder, "devices.json")
    if devices and devices.get("measured"):
        print(f"# {devices['measured']['name']}\n")
        ceilings = devices["measured"]
        print(f"read {ceilings['read_bytes_per_s'] / 1e12:.2f} TB/s, copy {ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s, "
              f"bf16 products {ceilings['bf16_flops_per_s'] / 1e12:.0f} TFLOP/s\n")
    peer = read(folder, "peer.json")
    peers = {(s["kind"], s["size"], s["context"]): s["seconds_median"] for s in peer["steps"]} if peer else {}
    measured(folder, ["steps.json", "decode.json", "decode-large.json", "prefill.json"], peers, TARGETS)
    for world_size in (2, 4, 8):
        if (folder / f"shard-{world_size}.json").is_file():
            print(f"## One rank of {world_size}, exchanges modelled\n")
            measured(folder, [f"shard-{world_size}.json", f"shard-{world_size}-prefill.json"], {}, {})
    models = read(folder, "models.json")
    if models:
        print("## Whole models against transformers\n")
        row("model", "part", "tokens", "mean", "p99", "bf16 mean", "bf16 p99", "")
        row(*["---"] * 8)
        for model in models["models"]:
            for part in model["parts"]:
                row(model["model"], part["what"], str(part["tokens"]), f"{part['ours']['mean']:.2e}", f"{part['ours']['p99']:.2e}",
                    f"{part['transformers_bf16']['mean']:.2e}", f"{part['transformers_bf16']['p99']:.2e}",
                    "passed" if part["passed"] else "FAILED")
        print()


if __name__ == "__main__":
    main()
