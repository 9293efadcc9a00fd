package main

import (
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"hastd/cmd/internal/daemon"
	"hastd/conf"
)

// The election is told where the group's other nodes are, all addresses of each: one
// that died before its adverts were heard is no stranger. With unicast it talks to the
// first address of each. Nodes that are not in the group are strangers.
func TestElectionKnowsTheOtherNodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hast.toml")
	text := `[cluster]
name = "test"
insecure = true
[node.alpha]
id = 0
address = ["10.0.0.1", "10.1.0.1"]
[node.bravo]
id = 1
address = ["10.0.0.2", "fd00::2"]
[node.carol]
id = 2
address = ["10.0.0.3"]
[group.data]
nodes = ["alpha", "bravo"]
election = "vrrp"
unicast = true
interfaces = ["eth0"]
address = ["10.0.0.100/24"]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := conf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	alpha, err := c.Node("alpha")
	if err != nil {
		t.Fatal(err)
	}
	u, err := newGroup(&server{o: daemon.Setup{Conf: c, Node: alpha, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}, c.Groups[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	if o := u.election.o; !slices.Equal(o.Nodes, want) || !slices.Equal(o.Peers, want[:1]) {
		t.Errorf("nodes %v, peers %v", o.Nodes, o.Peers)
	}
}
