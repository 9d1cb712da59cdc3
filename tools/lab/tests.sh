#!/usr/bin/env bash
# The tests on real switches and machines, in two halves side by side: they wait for most of their time, and each half
# has a stage of its own. What failed is run once more, alone, since the machine may have been too busy for both.
# Arguments go to pytest.
set -uo pipefail
cd "$(dirname "$0")/../.."

run_half() { # NAME ARGUMENT...
    .venv/bin/python -m tools.lab.stage -- .venv/bin/pytest -m "(lab or vm) and not long" \
        -o cache_dir=".pytest_cache/$1" "${@:2}" 2>&1 | sed -u "s/^/$1: /"
}

judge_half() { # EXIT-CODE NAME ARGUMENT...
    case $1 in
    1) echo "$2: what failed is run once more, alone" && run_half "${@:2}" --last-failed ;;
    5) echo "$2: no test was chosen" ;;
    *) return "$1" ;;
    esac
}

# About as long as the rest.
first=(tests/orchestrator tests/forepath tests/tools)
hosts=(hosts "${first[@]}" "$@")
network=(network tests "${first[@]/#/--ignore=}" "$@")
run_half "${hosts[@]}" &
run_half "${network[@]}"
network_code=$?
wait $!
hosts_code=$?
judge_half $network_code "${network[@]}"
network_code=$?
judge_half $hosts_code "${hosts[@]}" && exit $network_code
