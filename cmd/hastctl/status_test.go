package main

import (
	"strings"
	"testing"

	"hastd/cmd/internal/api"
)

func TestStatusForPeople(t *testing.T) {
	st := api.Status{Node: "alpha", Resources: []api.Resource{
		{Name: "data", Role: "primary", Status: "complete", Connection: "connected", Disk: "uptodate",
			Provider: &api.Provider{Path: "/dev/hast/data"}, Peer: api.Peer{Node: "bravo", Role: "secondary", Disk: "uptodate"}, Sync: api.Sync{State: "idle"}},
		{Name: "logs", Role: "secondary", Status: "syncing", Connection: "connected", Disk: "inconsistent", DirtyBytes: 3 << 20,
			Peer: api.Peer{Node: "bravo", Role: "primary", Disk: "uptodate"}, IO: api.IO{Suspended: true, Reason: "operator"}, Reason: "being filled",
			Sync: api.Sync{State: "running", Direction: "from-peer", BytesDone: 1 << 20, BytesLeft: 3 << 20, BytesPerSecond: 1 << 20, ETASeconds: 3}},
	}}
	const want = `NAME  ROLE       STATUS    CONNECTION  DISK          PEER             PEER DISK  DIRTY  PROVIDER
data  primary    complete  connected   uptodate      bravo secondary  uptodate   0 B    /dev/hast/data
logs  secondary  syncing   connected   inconsistent  bravo primary    uptodate   3 MiB  -
  sync from-peer [######..................] 25%, 3 MiB left, 1 MiB/s, done in 3s
  requests are held back: operator; hastctl resume logs goes on
  being filled
`
	var plainText, coloured strings.Builder
	printStatus(&plainText, st, false)
	if plainText.String() != want {
		t.Errorf("got\n%swant\n%s", plainText.String(), want)
	}
	printStatus(&coloured, st, true)
	stripped := strings.NewReplacer(green, "", yellow, "", red, "", reset, "").Replace(coloured.String())
	if stripped != want || !strings.Contains(coloured.String(), green+"complete"+reset) {
		t.Errorf("colours move columns, or there are none:\n%s", coloured.String())
	}
}

// 100% is said only when nothing is left.
func TestProgressIsNotDoneBeforeItIs(t *testing.T) {
	if p := progress(api.Sync{State: "running", Direction: "to-peer", BytesDone: 1 << 60, BytesLeft: 1, ETASeconds: -1}); !strings.Contains(p, " 99%") {
		t.Error(p)
	}
	if p := progress(api.Sync{State: "paused", Direction: "to-peer", BytesDone: 1, ETASeconds: -1}); !strings.Contains(p, " 100%") || !strings.HasSuffix(p, "paused") {
		t.Error(p)
	}
}

// The secondary does not count what is done, and shows no share of it.
func TestProgressOfWhatIsNotCounted(t *testing.T) {
	for want, s := range map[string]api.Sync{
		"sync from-peer in progress":             {State: "running", Direction: "from-peer", ETASeconds: -1},
		"sync from-peer in progress, 3 MiB left": {State: "running", Direction: "from-peer", BytesLeft: 3 << 20, ETASeconds: -1},
		"sync from-peer, paused":                 {State: "paused", Direction: "from-peer", ETASeconds: -1},
	} {
		if got := progress(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What helps is what the order is not refused for.
func TestHeldRequestsComeWithAdvice(t *testing.T) {
	for _, c := range []struct{ reason, disk, want string }{
		{"operator", "uptodate", "operator; hastctl resume data goes on"},
		{"peer-lost", "uptodate", "peer-lost; hastctl resume data goes on alone"},
		{"peer-lost", "inconsistent", "peer-lost; hastctl resume --error data ends them with errors"},
		{"both-failed", "failed", "both-failed; hastctl resume --error data ends them with errors"},
		{"peer-primary", "uptodate", "peer-primary; hastctl resume --error data ends them with errors"},
		{"no-lease", "uptodate", "no-lease"},
		{"reconfiguration", "uptodate", "reconfiguration"},
	} {
		r := api.Resource{Name: "data", Disk: c.disk, IO: api.IO{Suspended: true, Reason: c.reason}}
		var list strings.Builder
		printResource(&list, r)
		if n := notes(r); len(n) != 1 || n[0] != "requests are held back: "+c.want || !strings.Contains(list.String(), "held back: "+c.want+"\n") {
			t.Errorf("%s, disk %s: %q and\n%s", c.reason, c.disk, n, list.String())
		}
	}
}
