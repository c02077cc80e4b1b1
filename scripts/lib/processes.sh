# shellcheck shell=bash
# Starts and stops processes that outlive the script. Sourced; uses $state.
#
# Each has a file $state/NAME.pid with its pid and start time: at "down", the pid alone may be that of
# another process.

: "${state:?}"

# birth PID: its start time; false if it has ended or is a zombie.
birth() {
  local stat fields
  if [[ -d /proc/self ]]; then
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # The name in brackets may contain any characters; the third field follows it.
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != Z ]] && echo "${fields[19]}"
  else
    ps -o lstart= -p "$1"
  fi
}

# pid_of NAME: its pid, if it still runs.
pid_of() {
  local pid born
  { read -r pid born <"$state/$1.pid"; } 2>/dev/null || return 1
  [[ -n $born && $(birth "$pid") == "$born" ]] && echo "$pid"
}

runs() { pid_of "$1" >/dev/null; }
ended() { ! runs "$1"; }

# start NAME COMMAND...: starts it in the background, with its output in $state/NAME.log.
# Its own process group (set -m) protects it from a Ctrl-C for this script.
# The lock on descriptor 9 stays with the script, as do its stdin and stdout.
start() (
  name=$1
  shift
  trap '' HUP INT
  set -m
  "$@" </dev/null >"$state/$name.log" 2>&1 9>&- &
  echo "$! $(birth $!)" >"$state/$name.pid"
)

# stop NAME SECONDS: sends SIGTERM, and SIGKILL when the time is up.
stop() {
  local pid
  if pid=$(pid_of "$1"); then
    kill -TERM "$pid"
    wait_until "$2" ended "$1" || {
      say "$1 (pid $pid) did not end within $2 s: killing it"
      kill -KILL "$pid"
      wait_until 5 ended "$1" || die "$1 (pid $pid) cannot be killed"
    }
  fi
  rm -f "$state/$1.pid"
}
