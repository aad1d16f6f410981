#!/usr/bin/env bash
# Checks and times everything on one NVIDIA GPU, in 8 minutes: benchmarks/gpu.sh FOLDER
# Runs from a checkout with what `python` (or $PYTHON) has. A step that fails or takes too long is
# told of, and the next one runs; the exit status says whether all went well.
set -euo pipefail

if [[ $# -ne 1 || $1 == -* ]]; then
    echo "usage: benchmarks/gpu.sh FOLDER" >&2
    exit 2
fi
mkdir -p "$1"
output=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
budget_s=${BUDGET_S:-480}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Never a question to another machine.
export HF_HUB_OFFLINE=1
exec 3>&1 4>&2 > >(tee "$output/log.txt") 2>&1
log=$!
trap 'exec >&3 2>&4; wait "$log" || true' EXIT  # its last lines too

told=()

# step NAME SECONDS COMMAND…: at most so long, and no longer than there is time left.
step() {
    local name=$1 limit_s=$2 status=0 start_s=$SECONDS
    shift 2
    local left_s=$((budget_s - SECONDS))
    if ((left_s < 3)); then
        told+=("$name: left out, no time was left")
        return 1
    fi
    ((limit_s <= left_s)) || limit_s=$left_s
    printf '\n== %s (at most %s s)\n$ %s\n' "$name" "$limit_s" "$*"
    timeout --kill-after=5 "$limit_s" "$@" || status=$?
    local taken_s=$((SECONDS - start_s))
    case $status in
        0) told+=("$name: done in $taken_s s") ;;
        124 | 137) told+=("$name: CUT OFF after $taken_s s; what it had is in its folder") ;;
        *) told+=("$name: FAILED with status $status after $taken_s s") ;;
    esac
    return "$status"
}

# models NAME SECONDS OPTION…: lvt-ff benchmark of the three models to compare.
models() {
    local name=$1 limit_s=$2
    shift 2
    step "$name" "$limit_s" "$python" -m lvt_ff benchmark \
        --models lvt_ff_default,lvt_ff_default:softmax,timesformer \
        --device cuda --dtype bfloat16 --output "$output/$name" "$@"
}

if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader \
        | tee "$output/machine.txt" || echo "nvidia-smi failed"
fi
"$python" benchmarks/ready.py | tee -a "$output/machine.txt"
parallel=()
if "$python" -c "import xdist" 2> /dev/null; then
    processors=$(nproc)
    parallel=(-n "$((processors < 12 ? processors : 12))")
fi

failures=0
# The tests come first: on all processors, they compile most of what is timed after them.
# conftest.py needs a video decoder, and these tests do not need conftest.py.
step tests 130 "$python" -m pytest -m gpu -v --tb=short --noconftest -p no:cacheprovider \
    "${parallel[@]}" --continue-on-collection-errors \
    tests/ops/test_gpu.py tests/benchmarking/test_benchmark.py || failures=1
step kernels 100 "$python" benchmarks/kernels.py --output "$output/kernels.json" || failures=1
models forward 50 --frames 16 --batch_sizes 1,8,32 || failures=1
graph=(--graph)
if ! models graph 40 --frames 16 --graph; then
    failures=1 graph=()
    # It may be the third that cannot be captured.
    models graph_ours 30 --frames 16 --graph --models lvt_ff_default,lvt_ff_default:softmax || true
fi
models train 50 --frames 16 --mode train --batch_sizes 1,8 || failures=1
models profile 30 --frames 16 --batch_sizes 8 --repeats 1 --profile || failures=1
# Each model is compiled for each batch. The largest batch before the middle one, if time is short.
models compiled 150 --frames 16 --compile --batch_sizes 1,32,8 --repeats 5 || failures=1
models table8 "$budget_s" --table8 --repeats 3 "${graph[@]}" || failures=1

printf '\n== after %s s\n' "$SECONDS"
printf '%s\n' "${told[@]}"
exit "$failures"
