package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

func TestVIPTable(t *testing.T) {
	since := time.Date(2026, 11, 21, 23, 54, 18, 0, time.Local)
	var b strings.Builder
	printVIPs(&b, api.VIPs{Node: "alpha", VIPs: []api.VIP{
		{Group: "data", Protocol: "carp", ID: 1, State: "master", Since: since, Interface: "eth0", Addresses: []string{"192.0.2.10/24", "2001:db8::10/64"}, Held: true,
			Adverts: api.Adverts{Sent: 12, Received: 3, Refused: map[string]uint64{"auth": 2, "id": 9}}, Last: api.Change{Time: since, Old: "backup", New: "master", Reason: "master down"}},
		{Group: "batch", Protocol: "external", Since: since, Addresses: []string{}},
	}}, since.Add(3*time.Hour+2*time.Minute), false)
	const want = `GROUP  PROTOCOL  STATE   INTERFACE  ADDRESSES                        SINCE  SENT  RECEIVED  REFUSED
data   carp 1    MASTER  eth0       192.0.2.10/24* 2001:db8::10/64*  3h2m   12    3         2
  2026-11-21 23:54:18 BACKUP -> MASTER: master down
batch  external  -       -          -                                3h2m   0     0         0
`
	if b.String() != want {
		t.Errorf("the table is\n%swant\n%s", b.String(), want)
	}
}

func TestGroupTable(t *testing.T) {
	var b strings.Builder
	printGroups(&b, api.Groups{Node: "alpha", Groups: []api.Group{{
		Name: "data", State: "faulted", Online: "bravo", Election: "carp", Fit: false, Disabled: true, Fault: "data/service/app: exit status 1", Reason: "data/service/app: exit status 1",
		Parts: []api.Part{{Name: "data/resource/data", State: "down"}, {Name: "data/service/app", State: "down", Reason: "exit status 1"}, {Name: "data/mount/srv", State: "stuck", Reason: "in use by sh (7)"}},
	}}}, false)
	const want = `GROUP  STATE    ONLINE ON  ELECTION  MASTER  FIT  ORDERS
data   faulted  bravo      carp      no      no   disabled
  data/service/app: exit status 1
  data/resource/data is down
  data/service/app is down
  data/mount/srv is stuck: in use by sh (7)
`
	if b.String() != want {
		t.Errorf("the table is\n%swant\n%s", b.String(), want)
	}
}

func TestClearFindsThePart(t *testing.T) {
	st := api.Groups{Node: "alpha", Groups: []api.Group{
		{Name: "data", Parts: []api.Part{{Name: "data/service/app"}, {Name: "data/address/ip1", Address: "192.0.2.10"}}},
		{Name: "logs", Parts: []api.Part{{Name: "logs/service/app"}}},
	}}
	for name, want := range map[string]string{
		"data": "data ", "ip1": "data data/address/ip1", "192.0.2.10": "data data/address/ip1", "logs/service/app": "logs logs/service/app",
		"app": "", "nothing": "",
	} {
		g, p, err := findPart(st, name)
		if want == "" && exit.CodeOf(err) != exit.Usage || want != "" && (err != nil || g+" "+p != want) {
			t.Errorf("%s: %q %q, %v", name, g, p, err)
		}
	}
}

// eventSource is a daemon that has one event to tell and then stays silent.
func eventSource(t *testing.T, name string) *api.Client {
	return api.NewClient(serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(api.Event{Kind: "role", Name: name})
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}), time.Second)
}

// serveUnix is a daemon behind a socket, whose path it returns.
func serveUnix(t *testing.T, h http.HandlerFunc) string {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return path
}

func TestEventsOfBothDaemons(t *testing.T) {
	absent := api.NewClient(filepath.Join(os.TempDir(), "nobody-listens-here.sock"), time.Second)
	for name, sources := range map[string][]*api.Client{
		"both": {eventSource(t, "a"), eventSource(t, "b")}, "first": {eventSource(t, "a"), absent}, "second": {absent, eventSource(t, "b")},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var heard atomic.Int32
		want := int32(2)
		if name != "both" {
			want = 1
		}
		err := follow(ctx, sources, func(api.Event) error {
			if heard.Add(1) == want {
				cancel()
			}
			return nil
		})
		if err != nil && ctx.Err() == nil || heard.Load() != want {
			t.Errorf("%s: %d events, %v", name, heard.Load(), err)
		}
		cancel()
	}
	if err := follow(t.Context(), []*api.Client{absent, absent}, func(api.Event) error { return nil }); exit.CodeOf(err) != exit.Unreachable {
		t.Errorf("nobody there: %v", err)
	}
}

func TestSummaryTables(t *testing.T) {
	var b strings.Builder
	printSummary(&b, api.Summary{
		Systems: []api.SystemSummary{{System: "rum", State: "running"}, {System: "coke", State: "unknown", Frozen: true}},
		Groups: []api.GroupSummary{{Group: "group1", System: "rum", Probed: true, State: "faulted"},
			{Group: "group1", System: "coke", AutoDisabled: true, State: "unknown"}},
		Failed: []api.FailedPart{{Group: "group1", Kind: "address", Part: "ip1", System: "rum"}},
	})
	const want = `-- SYSTEM STATE
-- System               State                Frozen

A  rum                  RUNNING              0
A  coke                 UNKNOWN              1

-- GROUP STATE
-- Group           System               Probed     AutoDisabled    State

B  group1          rum                  Y          N               FAULTED
B  group1          coke                 N          Y               UNKNOWN

-- RESOURCES FAILED
-- Group           Type                 Resource             System

C  group1          address              ip1                  rum
`
	if b.String() != want {
		t.Errorf("the tables are\n%swant\n%s", b.String(), want)
	}
}

// What vipd alone knows can be followed, too.
func TestEventsOfANameThatVipdKnows(t *testing.T) {
	vipd := api.NewGroupClient(serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(api.Groups{Node: "alpha", Groups: []api.Group{{Name: "web", Parts: []api.Part{{Name: "web/service/app"}}}}})
	}), time.Second)
	absent := api.NewClient(filepath.Join(t.TempDir(), "nobody"), time.Second)
	// Any other name may be a resource: hastd knows, and it is not there.
	for name, want := range map[string]exit.Code{"web": 0, "web/service/app": 0, "alpha": 0, "data": exit.Unreachable} {
		if err := toFollow(t.Context(), absent, vipd, name); exit.CodeOf(err) != want {
			t.Errorf("%s: %v, want code %d", name, err, want)
		}
	}
	hastd := api.NewClient(serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(api.Failure{Error: "not configured", Code: exit.Usage})
	}), time.Second)
	for name, want := range map[string]exit.Code{"web": 0, "wen": exit.Usage} {
		if err := toFollow(t.Context(), hastd, vipd, name); exit.CodeOf(err) != want {
			t.Errorf("%s, with hastd there: %v, want code %d", name, err, want)
		}
	}
	if err := toFollow(t.Context(), absent, api.GroupClient{Client: absent}, "web"); exit.CodeOf(err) != exit.Unreachable {
		t.Errorf("nobody there: %v", err)
	}
}
