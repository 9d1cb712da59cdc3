#!/usr/bin/env bash
# The tests on real switches and machines, in two parts side by side: they wait for most of their time, and each part
# has a stage of its own. What failed is run once more, alone, since the machine may have been too busy for all.
# Arguments go to pytest.
set -uo pipefail
cd "$(dirname "$0")/../.."

run_part() { # NAME ARGUMENT...
    .venv/bin/python -m tools.lab.stage -- .venv/bin/pytest -m "(lab or vm) and not long" \
        -o cache_dir=".pytest_cache/$1" "${@:2}" 2>&1 | sed -u "s/^/$1: /"
}

judge_part() { # EXIT-CODE NAME ARGUMENT...
    case $1 in
    1) echo "$2: what failed is run once more, alone" && run_part "${@:2}" --last-failed ;;
    5) echo "$2: no test was chosen" ;;
    *) return "$1" ;;
    esac
}

# About equally long. More of them side by side would take as long, and miss what they wait for.
hosts=(tests/orchestrator tests/forepath tests/tools)
parts=(
    "hosts ${hosts[*]}"
    "network tests ${hosts[*]/#/--ignore=}"
)
pids=() failed=0
for part in "${parts[@]}"; do
    run_part $part "$@" &
    pids+=($!)
done
for n in "${!parts[@]}"; do
    wait "${pids[n]}"
    codes[n]=$?
done
for n in "${!parts[@]}"; do
    [ "${codes[n]}" = 0 ] || judge_part "${codes[n]}" ${parts[n]} "$@" || failed=$?
done
exit $failed
