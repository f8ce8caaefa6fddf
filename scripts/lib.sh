# Sourced by the scripts: saying what happens, and installing what is missing.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PEGEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pegel-tests}
started=$(date +%s)

say() { printf '\033[1m[%4ds] %s\033[0m\n' "$(($(date +%s) - started))" "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND…: runs it as root, where that is possible without a question.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo && sudo -n true 2>/dev/null; then sudo "$@"
  else return 1
  fi
}

# install_packages DEB-NAMES RPM-NAMES: installs by apt or dnf where that is allowed; fails where it is not.
install_packages() {
  if have apt-get; then
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $1 >/dev/null 2>&1 || {
      as_root apt-get update >/dev/null 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $1 >/dev/null
    }
  elif have dnf && [ -n "$2" ]; then
    # shellcheck disable=SC2086
    as_root dnf install -y $2 >/dev/null
  else
    return 1
  fi
}

# need COMMAND DEB-NAMES RPM-NAMES: makes sure that a command is there.
need() {
  have "$1" && return
  say "installing $1"
  install_packages "$2" "${3:-}" || die "\`$1\` is missing and could not be installed; please install ${2} (Debian) or ${3:-$2} (Fedora) and run this again"
}

need_toolchain() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  need cc "gcc libc6-dev" "gcc glibc-devel"
  need cmake cmake cmake
  if ! have cargo; then
    need curl curl curl
    say "installing Rust by rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt >/dev/null ||
      die "Rust could not be installed; see https://rustup.rs and run this again"
    . "$HOME/.cargo/env"
  fi
  say "$(cargo --version)"
}
