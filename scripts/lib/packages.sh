# shellcheck shell=bash
# Installs missing programs with the system's package manager, and says so first. Sourced.
#
# A package that is installed for a private server must not start a system-wide one. Debian's packages do
# that at once and at every boot; both are prevented here.

# Debian asks this file whether a package may start its service.
readonly service_policy=/usr/sbin/policy-rc.d
readonly policy_mark='# made by rpcache/scripts while it installs packages'
# Services of the packages below; epmd belongs to Erlang.
readonly packaged_services=(
  redis-server.service rabbitmq-server.service epmd.service epmd.socket prometheus.service haproxy.service
)

# find_first COMMAND...: the path of the first one that exists.
find_first() {
  local command
  for command; do
    command -v "$command" 2>/dev/null && return
  done
  return 1
}

find_redis() { find_first redis-server valkey-server; }

# The program itself. rabbitmq-server in a folder sbin is often a wrapper that changes to the user
# rabbitmq and to the data of the system's own server.
find_rabbitmq() {
  find_first /usr/lib/rabbitmq/bin/rabbitmq-server \
    /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server \
    /opt/rabbitmq/sbin/rabbitmq-server \
    /opt/homebrew/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server \
    rabbitmq-server
}

# find_python MODULE: not every python3 on the PATH sees the system's packages.
find_python() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -c "import $1" >/dev/null 2>&1 && echo "$python" && return
  done
  return 1
}

find_pika() { find_python pika; }

find_shellcheck() { find_first shellcheck; }

# With promtool, which some systems package separately.
find_prometheus() { find_first promtool >/dev/null && find_first prometheus; }

find_systemd_analyze() { find_first systemd-analyze; }
find_mandoc() { find_first mandoc; }
find_debootstrap() { find_first debootstrap /usr/sbin/debootstrap; }
find_lintian() { find_first lintian; }
find_haproxy() { find_first haproxy /usr/sbin/haproxy; }
find_iptables() { find_first iptables /usr/sbin/iptables; }
find_shlibdeps() { find_first dpkg-shlibdeps; }

# A Python that can make virtual environments; Debian packages a part of that separately.
find_venv() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 && echo "$python" && return
  done
  return 1
}

# package_of MANAGER NEED: the package with NEED.
package_of() {
  case $1:$2 in
    *:rabbitmq) [[ $1 == pacman || $1 == brew ]] && echo rabbitmq || echo rabbitmq-server ;;
    apt-get:redis) echo redis-server ;;
    dnf:redis | pacman:redis) echo valkey ;;
    *:redis) echo redis ;;
    pacman:pika) echo python-pika ;;
    apk:pika) echo py3-pika ;;
    brew:pika) return 1 ;;
    *:pika) echo python3-pika ;;
    dnf:prometheus) echo golang-github-prometheus ;;
    *:prometheus) echo prometheus ;;
    dnf:shellcheck) echo ShellCheck ;;
    *:systemd_analyze) echo systemd ;;
    apt-get:venv) echo python3-venv ;;
    *:venv) echo python3 ;;
    *:shlibdeps) echo dpkg-dev ;;
    *:shellcheck | *:mandoc | *:debootstrap | *:lintian | *:haproxy | *:iptables) echo "$2" ;;
  esac
}

# need LOG NEED...: installs what is missing. A NEED is redis, rabbitmq, pika, or any other with a
# find_NEED above.
need() {
  local log=$1 need manager package packages=()
  shift
  manager=$(find_first apt-get dnf pacman apk brew) || manager=none
  manager=${manager##*/}
  for need; do
    "find_$need" >/dev/null && continue
    package=$(package_of "$manager" "$need") || package=''
    [[ $manager != none && -n $package ]] \
      || die "$need is missing, and this script cannot install it on this system: install it by hand"
    packages+=("$package")
  done
  ((${#packages[@]} > 0)) || return 0

  if [[ $manager != brew ]] && ((EUID != 0)) && ! has sudo; then
    die "missing: ${packages[*]}. Installing them needs root, and there is no sudo: install them by hand"
  fi
  say "Installing with $manager: ${packages[*]} (log: $log)"
  mkdir -p "$(dirname "$log")"
  "install_with_$manager" "${packages[@]}" >"$log" 2>&1 </dev/null || {
    tail -n 5 "$log" >&2
    die "could not install ${packages[*]}; see $log, or install them by hand"
  }
  for need; do
    "find_$need" >/dev/null || die "${packages[*]} was installed, but $need is still missing"
  done
}

# as_root COMMAND...: runs it by sudo, which asks for a password if there is a terminal.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif [[ -t 2 ]] || { : >/dev/tty; } 2>/dev/null; then
    sudo "$@"
  else
    sudo -n "$@"
  fi
}

install_with_dnf() { as_root dnf install -y "$@"; }
install_with_pacman() { as_root pacman -S --noconfirm --needed "$@"; }
install_with_apk() { as_root apk add "$@"; }
install_with_brew() { brew install "$@"; }

# In a subshell, so that its trap ends with it.
install_with_apt-get() (
  new_services=()
  for service in "${packaged_services[@]}"; do
    [[ -e /lib/systemd/system/$service ]] || new_services+=("$service")
  done
  trap allow_services EXIT
  trap 'exit 130' INT TERM
  forbid_services || exit
  # If it fails, the package lists may be missing or outdated: they are updated for a second try.
  apt_get install "$@" || { apt_get update && apt_get install "$@"; } || exit
  if has systemctl; then
    for service in "${new_services[@]}"; do
      [[ ! -e /lib/systemd/system/$service ]] || as_root systemctl disable "$service"
    done
  fi
)

apt_get() {
  # NEEDRESTART_SUSPEND: otherwise Ubuntu restarts other servers that use an updated library.
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get -qy -o DPkg::Lock::Timeout=120 --no-install-recommends "$@"
}

forbid_services() {
  [[ ! -e $service_policy ]] || return 0
  # shellcheck disable=SC2016 # the shell that root starts expands these
  as_root sh -c 'printf "#!/bin/sh\n%s\nexit 101\n" "$1" >"$2" && chmod 755 "$2"' \
    sh "$policy_mark" "$service_policy"
}

# Removes only files that forbid_services wrote, in this run or in a killed one.
allow_services() {
  ! grep -qsF "$policy_mark" "$service_policy" || as_root rm -f "$service_policy"
}
