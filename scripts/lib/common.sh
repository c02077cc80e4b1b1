# shellcheck shell=bash
# Functions for all scripts: messages, and waiting for a condition. Sourced.

# Messages go to stderr: stdout is for output that a caller reads or evaluates.
say() { printf '%s\n' "$*" >&2; }

die() {
  say "$(basename "$0"): $*"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# wait_until SECONDS COMMAND...: runs COMMAND until it succeeds; false when the time is up.
wait_until() {
  local end=$((SECONDS + $1)) polls=0 dots=0
  shift
  until "$@"; do
    if ((SECONDS >= end)); then
      ((dots == 0)) || say ''
      return 1
    fi
    sleep 0.1
    if [[ -t 2 ]] && ((++polls % 10 == 0)); then
      printf . >&2
      dots=1
    fi
  done
  ((dots == 0)) || say ''
}
