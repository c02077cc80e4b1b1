# shellcheck shell=bash
# Tries the packages of scripts/package as a user does after installing them. Sourced; uses $out.

: "${root:?}" "${out:?}"

# try STATIC DEB VERSION: tries the static binary and the package of this version.
try() {
  ((EUID == 0)) || die 'must be run as root: it makes a clean root'
  say '== Trying the static binary in an empty root'
  try_alone "$1" "$3"
  say '== Trying the package in a clean Debian'
  need "$out/install.log" debootstrap
  clean_root
  cp "$2" "$out/root/rpcache.deb"
  try_installed "$3"
  say 'Both work.'
}

# try_alone STATIC VERSION: runs it in a root with the command and the two files for name resolution only.
try_alone() {
  local alone=$out/alone said
  rm -rf "$alone"
  install -D -m 755 "$1" "$alone/rpcache"
  mkdir "$alone/etc"
  echo '127.0.0.1 redis.test' >"$alone/etc/hosts"
  echo 'hosts: files dns' >"$alone/etc/nsswitch.conf"
  [[ $(chroot "$alone" /rpcache --version) == "rpcache $2" ]] || die 'the static binary does not start'
  # Nothing listens on port 1: a message that says so shows that the name was resolved.
  said=$(chroot "$alone" /rpcache cache get 30 --redis-url redis://redis.test:1 2>&1) || true
  [[ $said == *'nothing is listening'* ]] || die "the static binary does not resolve a name: $said"
}

# A minimal Debian with the programs that users have.
clean_root() {
  if [[ ! -e $out/debian-12.tar ]]; then
    debian_root bookworm "$out/clean" "$out/debootstrap.log" bash-completion man-db systemd
    tar --create --one-file-system --file "$out/debian-12.tar" --directory "$out/clean" .
    rm -rf "$out/clean"
  fi
  rm -rf "$out/root"
  mkdir "$out/root"
  tar --extract --file "$out/debian-12.tar" --directory "$out/root"
}

# inside COMMAND...: runs it in the clean root, with an empty environment.
inside() {
  chroot "$out/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=xterm "$@"
}

# expect WHAT COMMAND...: checks that its output contains WHAT.
expect() {
  local what=$1 said
  shift
  said=$("$@" 2>&1) || true
  [[ $said == *"$what"* ]] || die "\"$what\" is not in the output of $*: $said"
  say "ok: ${*#inside}: $what"
}

# typed TEXT: types it on a terminal of the clean root, with bash's default completion.
typed() {
  printf '%s\nexit\n' "$1" | script -qec "chroot '$out/root' env -i PATH=/usr/bin HOME=/root TERM=xterm bash -i" \
    /dev/null
}

# try_installed VERSION: installs the package; dpkg refuses if a dependency is missing.
try_installed() {
  local unit=rpcache-worker@1.service
  inside dpkg --install /rpcache.deb >/dev/null
  expect "rpcache $1" inside rpcache --version
  expect 'take requests from the queue' inside env MANPAGER=cat man rpcache-worker
  inside mandb --quiet
  expect 'rpcache-call (1)' inside apropos --exact rpcache-call
  # Tab completes commands and options.
  expect 'take requests from the queue' typed $'. /etc/bash_completion\nrpcache wor\t--he\t'
  inside systemd-analyze verify "$unit"
  expect 'exposure level' inside systemd-analyze security --offline=yes --threshold=12 --no-pager "$unit"
  expect '600 root:root' inside stat --format '%a %U:%G' /etc/rpcache/worker.env

  echo RPCACHE_NAMESPACE=mine >>"$out/root/etc/rpcache/worker.env"
  inside dpkg --force-confold --install /rpcache.deb >/dev/null
  expect mine inside cat /etc/rpcache/worker.env
  inside dpkg --remove rpcache >/dev/null
  expect mine inside cat /etc/rpcache/worker.env
  inside dpkg --purge rpcache >/dev/null
  [[ ! -e $out/root/etc/rpcache && ! -e $out/root/usr/bin/rpcache ]] || die 'files are left after a purge'
}
