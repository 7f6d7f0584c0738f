#!/usr/bin/env bash
# Set up an environment and reproduce the tables and figures (or, with --tests, lint and test). See --help.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: ./run_all.sh [options]

Set up an environment (once), run the numbered notebooks in order and write runs/PROFILE/report.html and the figures.

  --profile NAME    quick (default: rendered faces, minutes on a CPU), full (quick with the ablations, within the hour), paper (data
                    sets of your own, the paper's scale) or paper-full (paper with the ablations)
  --data-root DIR   with paper: folder that holds the data sets, each in a folder of its name (BP4D, DISFA, ...)
  --base DIR        with paper: model folder or hub name to start from (default: the hub's InstructBLIP-Vicuna-7B)
  --from NN         resume with notebook NN (for example 04), keeping the ones before it
  --output DIR      folder for runs (default: runs, beside this script)
  --figures DIR     folder for figures and tables (default: figures for quick and full, else in the run)
  --tests           set up, then run ruff check, ruff format --check and pytest instead of the notebooks
  --venv            use a virtual environment .venv even where conda, mamba or micromamba is installed
  --help            show this text

Examples:
  ./run_all.sh
  ./run_all.sh --from 04
  ./run_all.sh --profile paper --data-root data --base instructblip-vicuna-7b
HELP
}

fail() {
    local status="$1"
    shift
    printf 'run_all.sh: error: %s\n' "$*" >&2
    exit "$status"
}

absolute() { # a path given by the user is relative to where the user stands, not to this script
    case "$1" in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$PWD/$1" ;;
    esac
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
profile="quick" data_root="" base="" from="" output="$root/runs" figures="" extra="main" allow_conda=1

while (($#)); do
    option="$1"
    shift
    value=""
    case "$option" in
        --profile | --data-root | --base | --from | --output | --figures)
            (($#)) || fail 2 "$option needs a value (see ./run_all.sh --help)"
            value="$1"
            shift
            [[ -n "$value" ]] || fail 2 "$option was given an empty value (see ./run_all.sh --help)"
            ;;
    esac
    case "$option" in
        --profile) profile="$value" ;;
        --data-root) data_root="$(absolute "$value")" ;;
        --base) if [[ -d "$value" ]]; then base="$(absolute "$value")"; else base="$value"; fi ;;
        --from) from="$value" ;;
        --output) output="$(absolute "$value")" ;;
        --figures) figures="$(absolute "$value")" ;;
        --tests) extra="tests" ;;
        --venv) allow_conda=0 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail 2 "unknown option '$option' (see ./run_all.sh --help)" ;;
    esac
done
cd "$root"

is_recent() { # is "$1" a Python that starts, and 3.11 or newer?
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() { # sets base_python
    local candidate version found=""
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        version="$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" || continue
        found+=" $candidate ($version)"
        is_recent "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            base_python="$candidate"
            return
        fi
        found+=" without venv"
    done
    fail 1 "no Python 3.11 or newer with the venv module; found:${found:- none}. Install one (on Debian and Ubuntu:" \
        "sudo apt install python3.11 python3.11-venv) or conda, and start again"
}

use_venv() { # sets python
    python="$root/.venv/bin/python"
    if is_recent "$python" && { [[ -n "$uv" ]] || "$python" -m pip --version >/dev/null 2>&1; }; then
        return
    fi
    if [[ -n "$uv" ]]; then
        echo "== Making .venv with $("$uv" --version)"
        if "$uv" venv --clear --seed --python ">=3.11" "$root/.venv"; then return; fi
    fi
    find_python
    echo "== Making .venv with $("$base_python" --version)"
    "$base_python" -m venv --clear "$root/.venv" || fail 1 "could not make $root/.venv (see the lines above)"
}

conda_python() { # print the interpreter of the environment expvqa, or nothing when it has none that is recent enough
    "$1" run -n expvqa python -c 'import os, sys
if os.path.basename(sys.prefix) == "expvqa" and sys.version_info >= (3, 11):
    print(sys.executable)' 2>/dev/null | tail -n 1
}

use_conda() { # sets python; an existing environment is left as it is
    local tool="$1" verb="create"
    python="$(conda_python "$tool" || true)"
    [[ -z "$python" ]] || return 0
    if "$tool" env list | awk '$1 == "expvqa" { found = 1 } END { exit !found }'; then
        verb="update"
    fi
    echo "== $tool: $verb environment expvqa"
    local command=("$tool" env "$verb")
    [[ "$tool" != micromamba ]] || command=("$tool" "$verb")
    CONDA_ALWAYS_YES=1 MAMBA_ALWAYS_YES=1 \
        "${command[@]}" -n expvqa -f environment.yml || fail 1 "$tool failed (see above); try ./run_all.sh --venv"
    python="$(conda_python "$tool" || true)"
    [[ -n "$python" ]] || fail 1 "the $tool environment expvqa has no Python 3.11 or newer; remove it, or try ./run_all.sh --venv"
}

install() { # skipped while the stamp in the environment matches; written last, so a half-made environment has none
    local stamp hash installed target="."
    stamp="$("$python" -c 'import sys; print(sys.prefix)')/.expvqa-installed"
    hash="$("$python" -c 'import hashlib, pathlib, sys
parts = [sys.argv[1].encode()] + [pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())' "$root")"
    installed="$(cat "$stamp" 2>/dev/null || true)"
    [[ "$installed" != "$hash $extra" && "$installed" != "$hash tests" ]] || return 0
    [[ "$extra" != tests ]] || target=".[tests]"
    rm -f "$stamp"
    echo "== Installing (several minutes the first time)"
    { [[ -n "$uv" ]] && "$uv" pip install --python "$python" -c constraints.txt -e "$target"; } ||
        "$python" -m pip install --disable-pip-version-check -c constraints.txt -e "$target" ||
        fail 1 "the installation did not finish (see the lines above); start again to complete it"
    printf '%s %s\n' "$hash" "$extra" >"$stamp"
}

failed=0
step() { # run a command, print how long it took, remember a failure
    local title="$1" began=$SECONDS verdict="passed"
    shift
    echo "== $title"
    "$@" || {
        verdict="FAILED"
        failed=1
    }
    echo "== $title: $verdict in $((SECONDS - began)) s"
}

uv="$(command -v uv || true)" # installs in a third of the time; pip where it is not there, or fails
manager=""
if ((allow_conda)); then
    for tool in conda mamba micromamba; do
        if command -v "$tool" >/dev/null 2>&1; then
            manager="$tool"
            break
        fi
    done
fi
began=$SECONDS
if [[ -n "$manager" ]]; then use_conda "$manager"; else use_venv; fi
install
echo "== Environment ready in $((SECONDS - began)) s: $python"

export PATH="${python%/*}:$PATH" TOKENIZERS_PARALLELISM=false
if [[ "$extra" == tests || "$profile" == quick || "$profile" == full ]]; then
    export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
fi

if [[ "$extra" == tests ]]; then
    step "ruff check" "$python" -m ruff check .
    step "ruff format --check" "$python" -m ruff format --check .
    step "pytest" env OMP_NUM_THREADS=1 "$python" -m pytest -q -n 2 --dist loadfile --ignore tests/notebooks/test_jupyterlab.py # a file's tests share what they make
    step "pytest, JupyterLab in a browser" "$python" -m pytest -q tests/notebooks/test_jupyterlab.py      # alone: it waits for what is on the page
    exit "$failed"
fi

arguments=(--profile "$profile" --output "$output")
[[ -z "$figures" ]] || arguments+=(--figures "$figures")
[[ -z "$data_root" ]] || arguments+=(--data-root "$data_root")
[[ -z "$base" ]] || arguments+=(--base "$base")
[[ -z "$from" ]] || arguments+=(--from "$from")
exec "$python" -m expvqa_lib reproduce "${arguments[@]}"
