#!/bin/bash
# Installs the Debian packages that the tests use, and those named as arguments.
# As an ordinary user, or where there is no apt-get, it says so and changes nothing:
# tests that miss something are skipped. With CI=true a failure is a failure.
set -euo pipefail

wanted=(
	fio qemu-utils qemu-system-common              # clients and peers of the NBD provider
	libnbd-bin nbdkit nbd-client
	e2fsprogs xfsprogs fdisk                       # filesystems and partitions on devices
	iproute2 nftables                              # the lab's networks
	ucarp keepalived tshark                        # peers in elections, and a judge of packets
	resource-agents shellcheck libxml2-utils       # judges of contrib's scripts
	postgresql                                     # a database to lose nothing of
	gcc libc6-dev                                  # the race detector
	procps
	"$@"
)

missing=()
for p in "${wanted[@]}"; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "deps: not installed here, some tests will be skipped: ${missing[*]}" >&2
	exit 0
fi

# The packages above bring services that nobody here wants to run: what was not
# started before is not started now.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
echo "deps: installing ${missing[*]}" >&2
if log=$( (apt-get update && apt-get install -y --no-install-recommends "${missing[@]}") 2>&1); then
	exit 0
fi
echo "$log" | tail -n 15 >&2
if [ "${CI:-}" = true ]; then
	echo "deps: error: the packages above are missing" >&2
	exit 1
fi
echo "deps: going on without them; some tests will be skipped" >&2
