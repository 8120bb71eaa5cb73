#!/usr/bin/env bash
# Make the virtual environment DIRECTORY with PYTHON, or say what is missing for it.  One that works stays as it is.
#
#   tools/virtual_environment.sh PYTHON DIRECTORY
set -euo pipefail

python=$1 directory=$2

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# What was moved has the old path in its scripts.
if "$directory/bin/python" -m pip --version >/dev/null 2>&1 && grep -qF "$(pwd -P)/$directory" "$directory/bin/activate"; then
    exit 0
fi

command -v "$python" >/dev/null ||
    fail "$python is not here; install it with \`apt-get install python3 python3-venv\`, or name another: make PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is $("$python" -V), Equipoise needs 3.11 or newer; name another one: make PYTHON=/usr/bin/python3"
# Debian has the module venv without python3-venv, but not ensurepip: what it makes then has no pip.
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; run, as root: apt-get install python3-venv"

"$python" -m venv --clear "$directory"
