#!/usr/bin/env bash
# Install Debian packages that are missing, without starting the services that come in them.
#
#   tools/debian_packages.sh PACKAGE...
#
# As another user than root it says what to run.  invoke-rc.d asks /usr/sbin/policy-rc.d before it starts a service;
# 101 is "not allowed" (invoke-rc.d(8)).  A policy that is there already stays, ours goes when we end.
set -euo pipefail

readonly policy=/usr/sbin/policy-rc.d
readonly mark="# of equipoise, tools/debian_packages.sh"

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (names of Debian packages); this system has no apt-get, install them its own way" >&2
    exit 1
fi
if ((EUID != 0)); then
    echo "missing Debian packages: ${missing[*]}; run this, then the same command again:" >&2
    echo "    sudo $0 ${missing[*]}" >&2
    exit 1
fi

exec 9>/run/equipoise-debian-packages.lock # two at a time would take each other's policy away
flock 9
trap 'exit 130' INT
trap 'exit 143' TERM
if [[ ! -e $policy && ! -L $policy ]] || grep -qsF "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT # set first: there is no moment in which ours could stay behind
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi

install_missing() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
        -o DPkg::Lock::Timeout=120 "${missing[@]}" 9>&-
}

echo "installing Debian packages: ${missing[*]}"
# The package lists may be missing or old; they are fetched only when the packages cannot be had without.
install_missing || { apt-get update --quiet && install_missing; }
