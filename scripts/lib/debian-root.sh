# shellcheck shell=bash
# Makes roots of Debian releases with debootstrap. Sourced.

# debian_root SUITE FOLDER LOG PACKAGE...: makes a minimal Debian with these packages in FOLDER.
debian_root() {
  local suite=$1 folder=$2 log=$3 mirror packages
  mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1) || true
  shift 3
  packages=$*
  rm -rf "$folder"
  mkdir -p "$(dirname "$log")"
  debootstrap --variant=minbase --include="${packages// /,}" "$suite" "$folder" \
    "${mirror:-http://deb.debian.org/debian}" >"$log" 2>&1 || die "debootstrap of Debian $suite failed: see $log"
}
