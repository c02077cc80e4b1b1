# shellcheck shell=bash
# Tries what scripts/package has built, as somebody who has just installed it. Sourced; uses $out.

: "${root:?}" "${out:?}"

# try STATIC DEB VERSION: the static binary, the package, and what both are to be.
try() {
  local clean=$out/root
  ((EUID == 0)) || die 'a clean root is a matter for root'
  say '== Trying the static binary where there is nothing else'
  try_alone "$1" "$3"
  say '== Trying the package in a clean Debian'
  need "$out/install.log" debootstrap
  clean_root "$clean"
  cp "$2" "$clean/rpcache.deb"
  # No descriptors, terminals or variables of ours.
  chroot "$clean" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=xterm \
    bash -euo pipefail -c "$(declare -f say try_installed expect); try_installed \"\$1\"" bash "$3" \
    </dev/null || die 'the package does not work in a clean Debian'
  say 'Both work.'
}

# try_alone STATIC VERSION: in a root of its own that holds the command, and the two files by which it finds names.
try_alone() {
  local alone=$out/alone said
  rm -rf "$alone"
  install -D -m 755 "$1" "$alone/rpcache"
  mkdir "$alone/etc"
  echo '127.0.0.1 redis.test' >"$alone/etc/hosts"
  echo 'hosts: files dns' >"$alone/etc/nsswitch.conf"
  [[ $(chroot "$alone" /rpcache --version) == "rpcache $2" ]] || die 'the static binary does not start'
  # Port 1 is nobody's: whoever says so has found the name.
  said=$(chroot "$alone" /rpcache cache get 30 --redis-url redis://redis.test:1 2>&1) || true
  [[ $said == *'nothing is listening'* ]] || die "the static binary does not find a name: $said"
}

# clean_root FOLDER: a minimal Debian with what a user of the package has beside it.
clean_root() {
  local mirror
  rm -rf "$1"
  mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1) || true
  if [[ ! -e $out/debian-12.tar ]]; then
    debootstrap --variant=minbase --include=bash-completion,man-db,systemd bookworm "$out/clean" \
      "${mirror:-http://deb.debian.org/debian}" >"$out/debootstrap.log" 2>&1 \
      || die "no clean Debian: see $out/debootstrap.log"
    tar --create --one-file-system --file "$out/debian-12.tar" --directory "$out/clean" .
    rm -rf "$out/clean"
  fi
  mkdir "$1"
  tar --extract --file "$out/debian-12.tar" --directory "$1"
}

# expect WHAT COMMAND...: its output has WHAT in it.
expect() {
  local what=$1 said
  shift
  said=$("$@" 2>&1) || true
  if [[ $said != *"$what"* ]]; then
    say "$*: no $what in"
    say "$said"
    return 1
  fi
  say "ok: $* says: $what"
}

# try_installed VERSION: inside the clean root. What the package depends on is there, or dpkg refuses.
try_installed() {
  local typed='. /etc/bash_completion\nrpcache wor\t--help\nexit\n'
  dpkg --install /rpcache.deb >/dev/null
  expect "rpcache $1" rpcache --version
  expect 'nobody listens' rpcache health --help
  expect 'take requests from the queue' env MANPAGER=cat man rpcache-worker
  expect 'rpcache-call (1)' bash -c 'mandb --quiet && apropos --exact rpcache-call'
  # A terminal, in which somebody types and presses Tab.
  expect 'take requests from the queue' bash -c "printf '%b' '$typed' | script -qec 'bash --norc -i' /dev/null"
  systemd-analyze verify rpcache-worker@1.service
  expect 'rpcache-worker@1.service' systemd-analyze security --offline=yes --threshold=12 --no-pager \
    /usr/lib/systemd/system/rpcache-worker@.service
  expect '600 root:root' stat --format '%a %U:%G' /etc/rpcache/worker.env
  echo 'RPCACHE_NAMESPACE=mine' >>/etc/rpcache/worker.env
  dpkg --install --force-confold /rpcache.deb >/dev/null
  expect 'mine' cat /etc/rpcache/worker.env
  dpkg --remove rpcache >/dev/null
  expect 'mine' cat /etc/rpcache/worker.env
  dpkg --purge rpcache >/dev/null
  expect 'No such file' ls /etc/rpcache /usr/bin/rpcache
}
