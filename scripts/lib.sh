# Copyright © 2026 The virtio-gpu-s3 authors
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Helpers that every script of this directory shares. Sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lab=$repo/target/lab

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# need_packages NAME...: installs what is missing when it may, otherwise says what to type.
need_packages() {
    local name missing=()
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    if ((EUID)); then
        say "missing packages; run as root:"
        printf '    apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
}

# inputs_hash FUNCTION... [-- FILE...]: a hash of the code that makes something and of what it reads.
inputs_hash() {
    local functions=()
    while (($#)) && [[ $1 != -- ]]; do
        functions+=("$1")
        shift
    done
    [[ ${1-} == -- ]] && shift
    { declare -f "${functions[@]}"; (($# == 0)) || cat "$@"; } | sha256sum | cut -d' ' -f1
}

# is_fresh STAMP HASH: whether STAMP was written by mark_fresh with the same HASH.
is_fresh() { [[ -f $1 && $(<"$1") == "$2" ]]; }

mark_fresh() { printf '%s\n' "$2" >"$1"; }

# need_rust: Cargo, with Rust 1.89 or later.
need_rust() {
    command -v cargo >/dev/null || die "no cargo: install Rust 1.89 or later"
    local version
    version=$(rustc --version | cut -d' ' -f2)
    [[ $(printf '%s\n' 1.89.0 "$version" | sort -V | head -n 1) == 1.89.0 ]] ||
        die "Rust 1.89 or later is needed, this is $version"
}

# need_space GIB: that much disk for target/, what is in it already counted. A build that meets a full disk ends in an
# internal error of the compiler, after minutes.
need_space() {
    local held=0 free
    mkdir -p "$repo/target"
    held=$(du -sk "$repo/target" | cut -f1)
    free=$(df -k --output=avail "$repo/target" | tail -n 1)
    ((held + free >= $1 << 20)) ||
        die "$1 GiB of disk are needed under target/: it holds $((held >> 20)), $((free >> 20)) are free"
}
