#!/bin/bash
# Fetches Debian's kernel into the folder that is its argument, without installing it:
# vmlinuz, and below modules/ the few modules that the machines load.
set -euo pipefail
dir=$1
[ ! -e "$dir/vmlinuz" ] || exit 0
modules=(watchdog softdog e1000)

[ "$(dpkg --print-architecture)" = amd64 ] || { echo "kernel: only for amd64" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
image() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends:/ {print $2; exit}'; }
if [ -z "$(image)" ]; then
	apt-get update -qq
fi
p=$(image)
echo "kernel: fetching $p" >&2
# Lists that are too old name a version that is gone.
(cd "$tmp" && { apt-get download -qq "$p" || { apt-get update -qq && p=$(image) && apt-get download -qq "$p"; }; }) 2>"$tmp/log" || { cat "$tmp/log" >&2; exit 1; }
dpkg-deb -x "$tmp"/linux-image-*.deb "$tmp/x"
mkdir -p "$dir/modules"
for m in "${modules[@]}"; do
	f=$(find "$tmp/x" -name "$m.ko" -o -name "$m.ko.xz" | head -n 1)
	cp "$f" "$dir/modules/"
done
find "$dir/modules" -name '*.xz' -exec xz -df {} +
cp "$tmp"/x/boot/vmlinuz-* "$dir/vmlinuz.new"
mv "$dir/vmlinuz.new" "$dir/vmlinuz" # last: it says that the folder is complete
