#!/usr/bin/env bash
# The set-up that every command does first: one .venv with the pinned packages, made once, made again only when the pins change.
# Says nothing when there is nothing to do. PYTHON= names the interpreter, PIP_ARGS= is handed to pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv
stamp=$venv/pins

pins() { cat requirements.txt constraints.txt | cksum; }

up_to_date() { [[ -f $stamp && -x $venv/bin/python && $(<"$stamp") == "$(pins)" ]]; }

# The minor versions of Python 3 that the pinned packages are for, as pyproject.toml says: "11 12 …".
accepted() {
    local oldest beyond
    read -r oldest beyond < <(sed -n 's/^requires-python = ">=3\.\([0-9]*\),<3\.\([0-9]*\)"$/\1 \2/p' pyproject.toml)
    seq -s ' ' "$oldest" "$((beyond - 1))"
}

interpreter() {
    local minors name version seen=""
    minors=$(accepted)
    # shellcheck disable=SC2086  # a list of numbers; and PYTHON may be a list of names
    for name in ${PYTHON:-$(printf 'python3.%s ' $minors) python3}; do
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version="not there"
        if [[ $version == 3.* && " $minors " == *" ${version#3.} "* ]]; then
            echo "$name"
            return
        fi
        seen+="${seen:+, }$name: $version"
    done
    echo "set-up: the pinned packages are for Python 3.${minors%% *} to 3.${minors##* }, and none was found ($seen)." \
        "Install one, or name it: make setup PYTHON=/path/to/python3.${minors%% *}" >&2
    return 1
}

progress() { # one line that is rewritten on a terminal, a line every 40 packages elsewhere
    local total terminal=0
    total=$(grep -c '==' constraints.txt)
    [[ -t 1 ]] && terminal=1
    awk -v total="$total" -v terminal="$terminal" '
        /^Collecting / { n++; if (terminal) printf "\r\033[K  package %d of about %d: %s", n, total, $2
                         else if (n % 40 == 0) printf "  %d of about %d packages found\n", n, total; fflush() }
        /^Installing /  { if (terminal) printf "\r\033[K"; print "  installing them"; fflush() }'
}

up_to_date && exit 0
if command -v flock >/dev/null; then # two commands started at once set up once
    exec 9<requirements.txt
    flock -n 9 || { echo "set-up: another command is setting up; waiting for it"; flock 9; }
    up_to_date && exit 0
fi

python=$(interpreter)
[[ -d $venv ]] && why="the pins changed, or it was not finished" || why="none yet"
echo "set-up: making $venv with $("$python" --version 2>&1) ($why); this takes a few minutes and 2 to 3 GB, once"
[[ ! -L $venv ]] || rm "$venv" # a link: what it leads to is another checkout's
rm -f "$stamp"
if ! "$python" -m venv --clear "$venv"; then
    echo "set-up: $python cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv, then run this again" >&2
    exit 1
fi
# shellcheck disable=SC2086  # PIP_ARGS is a list of words
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off ${PIP_ARGS:-} \
    -r requirements.txt -c constraints.txt 2>&1 | tee "$venv/setup.log" | progress; then
    tail -n 5 "$venv/setup.log" >&2
    echo "set-up: pip failed (its last lines are above, all of them in $venv/setup.log). Most often there is no network, or a proxy or" \
        "index must be named: make setup PIP_ARGS=\"--index-url …\". Nothing else is needed; run the same command again" >&2
    exit 1
fi
pins >"$stamp"
echo "set-up: done"
