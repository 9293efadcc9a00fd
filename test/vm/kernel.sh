#!/bin/bash
# Fetches Debian's kernel into the folder that is its argument, without installing it:
# vmlinuz, and below modules/ the few modules that the machines load.
set -euo pipefail
dir=$1
modules=(watchdog softdog e1000
	virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk
	crc32c_generic crc16 mbcache jbd2 ext4)
complete() {
	[ -e "$dir/vmlinuz" ] || return 1
	for m in "${modules[@]}"; do
		[ -e "$dir/modules/$m.ko" ] || return 1
	done
}
! complete || exit 0

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
rm -f "$dir/vmlinuz" # of another version, maybe
for m in "${modules[@]}"; do
	f=$(find "$tmp/x" -name "$m.ko" -o -name "$m.ko.xz" | head -n 1)
	cp "$f" "$dir/modules/"
done
find "$dir/modules" -name '*.xz' -exec xz -df {} +
cp "$tmp"/x/boot/vmlinuz-* "$dir/vmlinuz.new"
mv "$dir/vmlinuz.new" "$dir/vmlinuz" # last: it says that the folder is complete
