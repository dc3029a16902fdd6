#!/usr/bin/env bash
# Tests and benchmarks on a GPU in one call of under nine minutes; needs torch, triton, numba, pytest, rich,
# matplotlib and safetensors, and installs nothing. JSON, plots and logs go to $OUT.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${GPU_PYTHON:-python3}
OUT=${OUT:-benchmarks/results/gpu}
STORE=${STORE:-.carry/ml-1m}
export PYTHONPATH=. PYTHONUNBUFFERED=1
mkdir -p "$OUT"
failed=0

stage() { # name, seconds, command...
	local name=$1 seconds=$2 started=$SECONDS code=0
	shift 2
	timeout --signal=INT --kill-after=5 "$seconds" "$@" >"$OUT/$name.log" 2>&1 || code=$?
	[ $code -eq 0 ] || failed=1
	summary+="$name: exit $code after $((SECONDS - started)) s"$'\n'
}

summary=""
stage tests 200 "$PYTHON" -m pytest -q -p no:cacheprovider tests/kernels/test_*_triton.py
stage kernels 220 "$PYTHON" -m benchmarks.kernels --device cuda --seconds 150 --out "$OUT/kernels.json" --plots "$OUT"
prepared=()
[ -d "$STORE" ] && prepared=(--store "$STORE")
stage training 100 "$PYTHON" -m benchmarks.training --device cuda --out "$OUT/training.json" "${prepared[@]}"
for log in tests kernels training; do
	echo "== $log"
	tail -n 25 "$OUT/$log.log"
done
printf '%s' "$summary"
exit $failed
