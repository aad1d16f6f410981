#!/usr/bin/env bash
# One epoch of fine-tuning on an NVIDIA GPU, in bf16, in fp16, and through accelerate's FSDP2 plugin:
# benchmarks/finetune_gpu.sh FOLDER
# Clips/s, share waiting for data and peak memory of each go to FOLDER/*.json. Videos are made up,
# weights random; nothing is downloaded. It has not been run yet: no figure of it is published.
set -euo pipefail

if [[ $# -ne 1 || $1 == -* ]]; then
    echo "usage: benchmarks/finetune_gpu.sh FOLDER" >&2
    exit 2
fi
mkdir -p "$1"
output=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
model=${MODEL:-lvt_ff_default}
videos=${VIDEOS:-800}
workers=${WORKERS:-8}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

data="$output/videos"
[[ -d $data ]] || "$python" benchmarks/training_videos.py "$data" "$videos"

failures=0
# one NAME LAUNCHER… -- OPTION…
one() {
    local name=$1 launcher=()
    shift
    while [[ $1 != -- ]]; do
        launcher+=("$1")
        shift
    done
    shift
    printf '\n== %s\n' "$name"
    rm -rf "${output:?}/run"
    "${launcher[@]}" benchmarks/finetune.py "$output/$name.json" --model "$model" --pretrained false \
        --train_data "$data" --output_dir "$output/run" --epochs 1 --num_workers "$workers" "$@" \
        || { echo "$name: FAILED with status $?"; failures=1; }
}

one bf16 "$python" -- --mixed_precision bf16 --batch_size 16
one fp16 "$python" -- --mixed_precision fp16 --batch_size 16
# A single process keeps all shards: what is shown is that the plugin's way works, and its cost.
one fsdp2 "$python" -m accelerate.commands.launch --num_processes 1 --num_machines 1 \
    --mixed_precision bf16 --dynamo_backend no --use_fsdp --fsdp_version 2 \
    --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP -- --batch_size 16 --grad_checkpointing
one find_batch_size "$python" -- --mixed_precision bf16 --total_batch_size 64 --find_batch_size
rm -rf "${output:?}/run"
exit "$failures"
