#!/usr/bin/env bash
# Everything that needs a GPU, in steps of under ten minutes: checks, then measurements.
#
#     gpu/run.sh [STEP…]             on a machine with a GPU; all steps in order if none is named
#     gpu/run.sh --rehearse [STEP…]  on any machine: the same steps, small, without a GPU
#     gpu/run.sh --list
#
# gpu/pack.sh made what it runs (gpu/carry/), elsewhere: here are no cargo and no network. Python with
# PyTorch and transformers is used where it is. Results go to gpu/results/<date>-<gpu>/, or to $FORESAIL_RESULTS: a
# step that is done is not done again, so after a cut the same command goes on. Exit code 1: a check failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=(environment kernels sanitizer models ops steps shards peer serving predict table)
rehearse=false
chosen=()
for argument; do
    case $argument in
        --rehearse) rehearse=true ;;
        --list) printf '%s\n' "${steps[@]}"; exit 0 ;;
        -*) echo "gpu/run.sh: unknown option $argument" >&2; exit 2 ;;
        *)
            [[ " ${steps[*]} " == *" $argument "* ]] || { echo "gpu/run.sh: no step $argument; there are ${steps[*]}" >&2; exit 2; }
            chosen+=("$argument")
            ;;
    esac
done
((${#chosen[@]})) || chosen=("${steps[@]}")

carry=${FORESAIL_CARRY:-gpu/carry}
foresail=$carry/foresail
[[ -x $foresail ]] || { echo "gpu/run.sh: $foresail is not there; gpu/pack.sh makes it, on a machine with cargo" >&2; exit 2; }
# Where tests find their files: they were built elsewhere.
export CARGO_MANIFEST_DIR=$PWD/engine
python=${FORESAIL_PYTHON:-python3}
has_python() { "$python" -c "import $1" 2>/dev/null; }

if $rehearse; then
    name=rehearsal backend=cpu gpu_backend=software-gpu
    export FORESAIL_TEST_GPU=software
else
    name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr 'A-Z ' 'a-z-')
    [[ -n $name ]] || { echo "gpu/run.sh: nvidia-smi shows no GPU; gpu/run.sh --rehearse needs none" >&2; exit 2; }
    backend=cuda gpu_backend=cuda
    export FORESAIL_TEST_GPU=hardware
fi
# A run that was cut off goes on in its folder, also on another day.
for unfinished in gpu/results/*-"$name"; do
    [[ -d $unfinished && ! -e $unfinished/.done ]] && FORESAIL_RESULTS=${FORESAIL_RESULTS:-$unfinished}
done
out=${FORESAIL_RESULTS:-gpu/results/$(date -u +%F)-$name}
mkdir -p "$out"
echo "results: $out"

# Runs a command, with its output on the screen and in a file.
log() { local file=$1; shift; "$@" 2>&1 | tee "$file"; return "${PIPESTATUS[0]}"; }
# A step, or a part of one, that cannot be done here: it may be another time.
skip() { echo "SKIPPED: $1" | tee "$out/$2"; return 3; }
# Writes what a command prints to a file, unless that is there from before; none may take ten minutes.
keep() {
    local file=$1; shift
    [[ -s $file ]] && return
    timeout 570 "$@" >"$file.part" || return
    mv "$file.part" "$file"
}

step_environment() {
    { date -u; uname -srm; nvidia-smi 2>/dev/null; } >"$out/environment.txt"
    log "$out/devices.txt" "$foresail" devices || return
    "$foresail" devices --measure "$gpu_backend" --format json >"$out/devices.json" && cat "$out/devices.json"
}

step_kernels() {
    log "$out/kernels.txt" "$carry/kernels" --test-threads 1 || return
    $rehearse || log "$out/hardware.txt" "$carry/hardware" --test-threads 1
}

step_sanitizer() {
    local sanitizer tool failed=0
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    [[ -n $sanitizer ]] || { skip 'compute-sanitizer is not here' sanitizer.txt; return; }
    # The shapes of the software device: small ones.
    for tool in memcheck racecheck synccheck; do
        [[ -s $out/sanitizer-$tool.txt ]] && continue
        if ! FORESAIL_TEST_SMALL=1 timeout 570 "$sanitizer" --tool "$tool" --error-exitcode 9 "$carry/kernels" --test-threads 1 \
            >"$out/sanitizer.log" 2>&1; then failed=1; fi
        grep -E 'ERROR SUMMARY|RACECHECK SUMMARY|=========.*(Invalid|Race|hazard)|test result|FAILED' "$out/sanitizer.log" | head -n 60 \
            | tee "$out/sanitizer-$tool.txt"
    done
    rm -f "$out/sanitizer.log"
    return $failed
}

step_models() {
    # The golden models, on the GPU and on the CPU.
    log "$out/models.txt" "$carry/model" --test-threads 1 gpu || return
    if ! has_python transformers; then skip 'no transformers in Python' hugging_face.txt; return; fi
    if $rehearse; then
        log "$out/hugging_face.txt" "$python" gpu/hugging_face.py --foresail "$foresail" --backend "$gpu_backend" --small --out "$out/models.json"
    else
        log "$out/hugging_face.txt" "$python" gpu/hugging_face.py --foresail "$foresail" --backend "$backend" --out "$out/models.json"
    fi
}

step_ops() {
    local software=
    if $rehearse; then software=--software; fi
    # shellcheck disable=SC2086
    keep "$out/ops.json" "$carry/gpu_ops" $software
}

step_steps() {
    if $rehearse; then
        "$foresail" bench --backend "$backend" --dummy tiny --batch 1,4 --context 32 --chunk 8,32 --repeats 2 --format json >"$out/steps.json" \
            && "$foresail" bench --backend software-gpu --dummy tiny --batch 1,2 --context 16 --chunk 8 --repeats 1
        return
    fi
    # 256 sequences of 4096 tokens are 137 GB of KV cache, which no H200 has beside the weights.
    local bench=("$foresail" bench --backend cuda --dummy llama-3-8b --format json)
    keep "$out/decode.json" "${bench[@]}" --batch 1,8,64 --context 1024,4096 --chunk 64 --repeats 20 || return
    keep "$out/decode-large.json" "${bench[@]}" --batch 128,256 --context 1024 --chunk 64 --repeats 20 || return
    keep "$out/prefill.json" "${bench[@]}" --chunk 512,2048,8192 --repeats 10
}

step_shards() {
    local world_size decode="--batch 1,8,64,256 --context 1024,4096 --chunk 64 --repeats 10" prefill="--chunk 512,2048,8192 --repeats 5" shape=llama-3-8b
    if $rehearse; then decode="--batch 1 --context 16 --chunk 8 --repeats 1" prefill="--chunk 8 --repeats 1" shape=tiny; fi
    for world_size in 2 4 8; do
        # A tiny model has too few heads for eight ranks.
        if $rehearse && ((world_size > 2)); then continue; fi
        local bench=("$foresail" bench --backend "$gpu_backend" --dummy "$shape" --world-size "$world_size" --shard-alone h200 --format json)
        # shellcheck disable=SC2086
        keep "$out/shard-$world_size.json" "${bench[@]}" $decode || return
        # shellcheck disable=SC2086
        keep "$out/shard-$world_size-prefill.json" "${bench[@]}" $prefill || return
    done
}

step_peer() {
    if ! has_python torch; then skip 'no PyTorch in Python' peer.txt; return; fi
    if $rehearse; then
        log "$out/peer.txt" "$python" gpu/peer.py --rehearse --out "$out/peer.json"
    else
        log "$out/peer.txt" timeout 570 "$python" gpu/peer.py --out "$out/peer.json"
    fi
}

step_serving() {
    local address load served=$out/served.txt
    if $rehearse; then
        set -- serve --backend "$backend" --dummy tiny
        load="--rate 4 --duration 3s --random-input-len 16 --random-output-len 8"
    else
        set -- serve --backend "$backend" --dummy llama-3-8b
        load="--rate 2,8,16 --duration 30s --random-input-len 1024 --random-output-len 128"
    fi
    "$foresail" "$@" --port 0 --access-log none >"$served" 2>"$out/serve.log" &
    local server=$!
    # Whatever happens, the GPU's memory is given back.
    trap "kill $server 2>/dev/null" EXIT
    for _ in {1..4000}; do
        if grep -q '^ready: ' "$served" || ! kill -0 $server 2>/dev/null; then break; fi
        sleep 0.1
    done
    address=$(sed -n 's|^ready: \(http://[0-9.]*:[0-9]*\)/.*|\1|p' "$served")
    [[ -n $address ]] || { cat "$served" "$out/serve.log"; kill $server 2>/dev/null; return 1; }
    cat "$served"
    # shellcheck disable=SC2086
    log "$out/serving.txt" timeout 400 "$foresail" load --url "$address" --tokenizer bytes $load --out "$out/serving"
    local code=$?
    kill -TERM $server
    wait $server
    # A client that was disturbed says so with 4: its figures are to be read with that.
    ((code == 0 || code == 4))
}

step_predict() {
    # Calibrated from inside and from outside, then runs that neither fit has seen, and their simulations. What is
    # there is not done again, so after a cut the same command goes on.
    local of="--of cuda --repeats 2 --seconds 20 --inside-seconds 120 --outside-seconds 120"
    if $rehearse; then of="--of emulated --repeats 1 --seconds 5 --outside-seconds 60"; fi
    # shellcheck disable=SC2086
    log "$out/predict.txt" timeout 590 "$carry/prediction" --foresail "$foresail" $of --out "$out/prediction" --table "$out/prediction.md"
}

step_table() { "$python" gpu/table.py "$out" | tee "$out/table.md"; }

failed=()
for step in "${chosen[@]}"; do
    if [[ -e $out/.done-$step ]]; then echo "== $step: done before"; continue; fi
    echo "== $step"
    began=$SECONDS
    "step_$step"
    code=$?
    if ((code == 3)); then
        # A part could not be done here.
        echo "== $step: $((SECONDS - began)) s, not whole"
    elif ((code == 0)); then
        # The table is of whatever is there, so it is made again each time.
        [[ $step == table ]] || touch "$out/.done-$step"
        echo "== $step: $((SECONDS - began)) s"
    else
        failed+=("$step")
        echo "== $step FAILED after $((SECONDS - began)) s"
    fi
done
if ((${#failed[@]})); then echo "FAILED: ${failed[*]}"; exit 1; fi
((${#chosen[@]} < ${#steps[@]})) || touch "$out/.done"
echo 'all passed'
