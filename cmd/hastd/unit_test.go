package main

import (
	"log/slog"
	"testing"
	"time"

	"hastd/conf"
	"hastd/replicate"
	"hastd/transport"
)

const optionsConfig = `[cluster]
name   = "test"
insecure = true
[hastd]
port   = 8457
[node.alpha]
id      = 1
address = ["10.0.0.1", "10.1.0.1"]
[node.bravo]
id      = 2
address = ["10.0.0.2", "10.1.0.2"]
hastd.port = 9000
[resource.data]
replication  = "async"
provider     = "nbd-server"
on-peer-loss = "suspend"
timeout      = "7s"
checksum     = "crc32c"
sync.max-rate = "1MiB"
sync.latency-target = "5ms"
on.alpha.local = "/a"
on.alpha.metadata = "/m"
on.bravo.local = "/b"
`

func TestConfigurationReachesTheRunner(t *testing.T) {
	c, err := conf.Parse("test.toml", []byte(optionsConfig))
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string) (o struct {
		paths []transport.Path
		local string
		meta  string
		peer  string
		live  replicate.Live
		mode  replicate.Mode
		check string
		wait  time.Duration
	}) {
		t.Helper()
		n, err := c.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		h, _ := c.Effective(n)
		r, err := (&unitMaker{conf: c, node: n, hastd: h, log: slog.New(slog.DiscardHandler)}).runnerOptions(c.Resources[0])
		if err != nil {
			t.Fatal(err)
		}
		if r.NeedLease || !r.Transport.Insecure || r.Transport.Timeout != r.Timeout {
			t.Errorf("options of %s: %+v", name, r)
		}
		o.paths, o.local, o.meta, o.peer, o.live, o.mode, o.check, o.wait = r.Paths, r.Component, r.Metadata, r.Peer, r.Live, r.Mode, r.Transport.Checksum, r.Timeout
		return o
	}
	a, b := of("alpha"), of("bravo")
	// The node with the lower id dials, on each pair of addresses, to the port of
	// the other.
	if len(a.paths) != 2 || a.paths[1] != (transport.Path{Local: "10.1.0.1", Remote: "10.1.0.2:9000"}) || b.paths != nil {
		t.Errorf("paths %v and %v", a.paths, b.paths)
	}
	if a.local != "/a" || a.meta != "/m" || b.local != "/b" || b.meta != conf.MetadataInternal || a.peer != "bravo" || b.peer != "alpha" {
		t.Errorf("components %+v, %+v", a, b)
	}
	if a.live != (replicate.Live{Suspend: true, MaxRate: 1 << 20, LatencyTarget: 5 * replicate.Millisecond}) {
		t.Errorf("live settings %+v", a.live)
	}
	if a.mode != replicate.Async || a.check != "crc32c" || a.wait != 7*time.Second {
		t.Errorf("mode %v, checksum %s, timeout %v", a.mode, a.check, a.wait)
	}
}
