# shellcheck shell=bash
# What every script here needs: messages, and waiting for a condition. Sourced, never run.

# stdout belongs to what a caller may want to read or eval; messages go to stderr.
say() { printf '%s\n' "$*" >&2; }

die() {
  say "$(basename "$0"): $*"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# wait_until SECONDS COMMAND...: poll COMMAND until it succeeds; false when the time is over.
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
