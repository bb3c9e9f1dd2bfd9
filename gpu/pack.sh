#!/usr/bin/env bash
# Builds what gpu/run.sh needs into gpu/carry/: the program, and the test executables. On a machine
# with cargo, for a machine with a GPU and without. Nothing of CUDA is needed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Small and soon built: link-time optimisation does nothing for what runs on the GPU.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=none
export CARGO_PROFILE_RELEASE_STRIP=symbols
cargo build --release --bin foresail
cargo build --release -p foresail-engine --example gpu_ops
cargo build --release -p foresail --example prediction
mkdir -p gpu/carry
built=${CARGO_TARGET_DIR:-target}/release
cp "$built/foresail" "$built/examples/gpu_ops" "$built/examples/prediction" gpu/carry/
for test in kernels model hardware; do
    executable=$(cargo test --release -p foresail-engine --test "$test" --no-run --message-format=json \
        | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    cp "$executable" "gpu/carry/$test"
done
ls -l gpu/carry
