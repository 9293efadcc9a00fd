package metrics

import (
	"bytes"
	"context"
	"flag"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"net/http/httptest"

	"hastd/cmd/internal/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

type fixed []Sample

func (f fixed) Samples(context.Context) []Sample { return f }

func samples() fixed {
	h := Histogram{Bounds: []float64{0.0001, 0.001, 0.01}, Counts: []uint64{3, 2, 1}, Count: 7, Sum: 0.5}
	s := Sample{
		Resource: api.Resource{Name: "data", Role: "primary", Status: "syncing", Connection: "connected", Disk: "uptodate",
			Peer: api.Peer{Disk: "inconsistent"}, Localcnt: 2, Remotecnt: 1, Epoch: 5, DirtyBytes: 8192,
			Sync: api.Sync{State: "running", BytesLeft: 4096}, IO: api.IO{Suspended: true, Reason: "operator"}},
		Size: 1 << 30, SyncSent: 12345, Inflight: 3, BuffersFree: 1 << 20, LogWrites: 9,
		ErrLocal: [3]uint64{1, 2, 3}, ErrPeer: [3]uint64{4, 5, 6}, Repairs: 1, Reconnects: 2, SplitBrains: 1,
		LagBytes: 100, LagSeconds: 0.25, Paths: []Path{{"10.0.0.1-10.0.0.2", true}, {"10.1.0.1-10.1.0.2", false}},
		RoundTrip: 150 * time.Microsecond,
	}
	for i := range s.IO {
		s.IO[i] = Amount{uint64(10 + i), uint64(4096 * i)}
	}
	s.Latency[1] = [3]Histogram{h, h, h}
	failed := Sample{Resource: api.Resource{Name: "broken", Role: "init", Status: "failed", Connection: "standalone", Disk: "failed",
		Peer: api.Peer{Disk: "unknown"}, Sync: api.Sync{State: "idle"}}}
	return fixed{s, failed}
}

func scrape(t *testing.T, c prometheus.Collector) []byte {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("scrape: %d %s", rec.Code, rec.Body)
	}
	// The build differs from one machine to the next.
	return regexp.MustCompile(`hast_build_info\{.*\}`).ReplaceAll(rec.Body.Bytes(), []byte("hast_build_info{}"))
}

type fixedGroups []GroupSample

func (f fixedGroups) GroupSamples() []GroupSample { return f }
func (f fixedGroups) Watchdog() WatchdogSample {
	return WatchdogSample{State: "fed", Feeds: 7, Withheld: 1}
}

func groupSamples() fixedGroups {
	return fixedGroups{
		{Node: "alpha", Group: api.Group{Name: "data", State: "online", Count: 1}, Violations: 1, Restarts: map[string]uint64{"app": 3, "db": 0}, Transitions: map[string]uint64{"backup": 2, "master": 1},
			VIP: api.VIP{State: "master", Adverts: api.Adverts{Sent: 10, Received: 3, Refused: map[string]uint64{"auth": 2, "ttl": 0}}}},
		{Node: "alpha", Group: api.Group{Name: "batch", State: "faulted"}}, // its election is external
	}
}

// scrapes are those of both daemons, by golden file.
var scrapes = map[string]prometheus.Collector{
	"testdata/scrape.prom": NewCollector(samples()), "testdata/vipd.prom": NewGroupCollector(groupSamples()),
}

func TestScrapeGolden(t *testing.T) {
	for golden, c := range scrapes {
		got := scrape(t, c)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the scrape changed; metrics are a contract. If it is meant: go test -update\n%s", golden, got)
		}
	}
}

func TestScrapeIsClean(t *testing.T) {
	for golden, c := range scrapes {
		problems, err := promlint.New(bytes.NewReader(scrape(t, c))).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", golden, p.Metric, p.Text)
		}
	}
}
