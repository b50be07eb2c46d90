#!/usr/bin/env bash
# All that waits for a GPU: the presets "cifar10", one seed of each, then a second. Call it again until it says "done";
# each call takes at most ten minutes, goes on where the one before stopped, and leaves what is finished in FOLDER.
#
#     NTK_COURSE_DATA=folder bash tools/on_gpu.sh FOLDER [experiments|tests|speed]
#
# "tests" runs the tests that need a GPU, "speed" times whole data sets (book/results/cost/gpu.json).
set -u
cd "$(dirname "$0")/.."
out=${1:?FOLDER: where finished results go} what=${2:-experiments} status=0
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
python=$(command -v .venv/bin/python || command -v python3)
case $what in
experiments)
    began=$SECONDS
    for seeds in 1 2; do
        left=$((540 - SECONDS + began))
        [ "$left" -gt 0 ] || { status=130; break; }
        minutes=$(awk "BEGIN { print $left / 60 }")
        "$python" -m ntk_course run --all --preset cifar10 --where device --seeds "$seeds" --minutes "$minutes" || { status=$?; break; }
    done
    ;;
tests) "$python" -m pytest -q -m gpu || status=$? ;;
speed) "$python" benchmarks/gpu.py --save book/results/cost/gpu.json || status=$? ;;
*)
    echo "got '$what'; wanted experiments, tests or speed" >&2
    exit 2
    ;;
esac
mkdir -p "$out"
find book/results -name cifar10.json -o -path '*/cost/gpu.json' | tar -czf "$out/results.tgz.part" -T - && mv "$out/results.tgz.part" "$out/results.tgz"
case $status in
0) echo "done" ;;
130) echo "not done: call it again" ;;
esac
exit $status
