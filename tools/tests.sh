#!/usr/bin/env bash
# All tests, in parts side by side. Those on real switches and machines wait for most of their time, so all others run
# beside them and take only what they leave of the processors: what the lab waits for comes in time. What failed is run
# once more, alone, since the machine may have been too busy for all. Arguments go to pytest.
set -uo pipefail
cd "$(dirname "$0")/.."

run_lab() { # NAME ARGUMENT...
    .venv/bin/python -m tools.lab.stage -- .venv/bin/pytest -m "(lab or vm) and not long" \
        -o cache_dir=".pytest_cache/$1" "${@:2}" 2>&1 | sed -u "s/^/$1: /"
}

run_units() { # ARGUMENT...
    .venv/bin/pytest -m "not lab and not vm and not long" -o cache_dir=.pytest_cache/units "$@" 2>&1 | sed -u "s/^/units: /"
}

run_units_together() { # ARGUMENT...
    run_units -n 3 --dist loadfile --no-loadscope-reorder "$@"
}

# A kernel that groups tasks by session heeds the priority of the group, and within the group that of the task.
run_behind() { # ARGUMENT...
    echo 19 2>/dev/null >/proc/self/autogroup
    renice -n 19 $BASHPID >/dev/null
    run_units_together "$@"
}

judge_part() { # EXIT-CODE NAME COMMAND...
    case $1 in
    0) return 0 ;;
    1) echo "$2: what failed is run once more, alone" && "${@:3}" --last-failed --last-failed-no-failures none ;;
    5) echo "$2: no test was chosen" ;;
    *) return "$1" ;;
    esac
}

if [ "${1:-}" = --behind ]; then
    run_behind "${@:2}"
    exit
fi

pids=()
# A session of its own is told of Ctrl-C by nobody else.
trap 'trap - TERM; kill -TERM -- "-${pids[0]}" 2>/dev/null; kill -TERM 0' INT TERM
if reason=$(.venv/bin/python -m tools.lab.stage --why-not); then
    .venv/bin/python -m tools.lab.assets || exit
    setsid tools/tests.sh --behind "$@" &
    pids+=($!)
    # About equally long. More of them side by side would take as long, and miss what they wait for.
    hosts=(tests/orchestrator tests/forepath tests/tools tests/ryu_apps/test_splits_lab.py)
    run_lab hosts "${hosts[@]}" "$@" &
    pids+=($!)
    run_lab network tests "${hosts[@]/#/--ignore=}" "$@" &
    pids+=($!)
else
    echo "lab tests: left out, because $reason"
    run_units_together "$@" &
    pids+=($!)
fi
codes=()
for pid in "${pids[@]}"; do
    wait "$pid"
    codes+=($?)
done
failed=0
judge_part "${codes[0]}" units run_units "$@" || failed=$?
if [ "${#codes[@]}" = 3 ]; then
    judge_part "${codes[1]}" hosts run_lab hosts "${hosts[@]}" "$@" || failed=$?
    judge_part "${codes[2]}" network run_lab network tests "${hosts[@]/#/--ignore=}" "$@" || failed=$?
fi
exit $failed
