package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"hastd/cmd/internal/exit"
)

type fakeGroups struct {
	fake
	order func(ctx context.Context, group, order, part string) error
}

func (f *fakeGroups) Order(ctx context.Context, group, order, part string) error {
	return f.order(ctx, group, order, part)
}

var since = time.Date(2026, 11, 21, 23, 54, 18, 0, time.UTC)

func (f *fakeGroups) Groups() []Group {
	return []Group{{
		Name: "data", State: "faulted", Since: since, Reason: "data/service/app: could not be started: exit status 1", Election: "carp",
		Online: "bravo", Nodes: []string{"alpha", "bravo"}, Standing: "data is uptodate here, connected, peer primary", Disabled: true, Probed: true,
		Fault: "data/service/app: could not be started: exit status 1",
		Parts: []Part{{Name: "data/resource/data", Kind: "resource", State: "down"}, {Name: "data/service/app", Kind: "service", State: "down", Reason: "exit status 1"},
			{Name: "data/address/ip1", Kind: "address", State: "down", Address: "192.0.2.10"}},
		Count: 1, Hosts: []string{"bravo"},
	}}
}

func (f *fakeGroups) VIPs() []VIP {
	return []VIP{{
		Group: "data", Protocol: "carp", ID: 1, State: "backup", Since: since, Interface: "eth0", Addresses: []string{"192.0.2.10/24"},
		Adverts: Adverts{1, 2, map[string]uint64{"auth": 3}}, Last: Change{since, "master", "backup", "switched by order"},
	}}
}

func (f *fakeGroups) Cluster(context.Context) (Cluster, error) {
	return Cluster{
		Node: "alpha", Name: "office", Quorum: "majority", Generation: "1.7", Leader: "alpha", Waits: "view 1.7 of nodes alpha bravo: not enough",
		Era: &Era{"others-are-down", "alpha", "root", since}, Votes: &Votes{2, 2, 1, "alpha", true}, Decision: &Decision{since, "excluded: charlie", "by order of a person"}, LeaseLeftMS: 2400, Joined: true,
		Nodes: []ClusterNode{{
			Name: "bravo", ID: 1, State: "member", Incarnation: "0123456789abcdef", Reason: "nothing heard for 3.0 s", Hears: []string{"alpha"},
			Links: []Link{{"link 0", "down", 3000, "no carrier here"}}, ClockAheadMS: 1500, Differences: []Difference{{"cluster.lease", "3s", "2s"}}, Addresses: []string{"192.0.2.2"},
		}},
		Resources: []ClusterResource{{"data", "alpha", []string{"alpha"}, []string{"alpha", "bravo"}, true, true}},
	}, nil
}

func (f *fakeGroups) Own(ctx context.Context, resource string, force bool) error {
	return f.order(ctx, resource, "own", map[bool]string{true: "by force"}[force])
}

func (f *fakeGroups) NodeState() NodeState {
	return NodeState{Node: "alpha", State: "stopping", Reason: ReasonStop, Detail: "resource data: in use", Since: since, Started: since, Last: &NodeEnd{ReasonStop, "root", since}}
}

func (f *fakeGroups) OrderNode(ctx context.Context, order string, req NodeRequest) error {
	return f.order(ctx, "node", order, fmt.Sprintf("%s %v %v", req.Who, req.Bootstrap, req.OthersAreDown))
}

func (f *fakeGroups) ClusterSummary() Summary {
	return Summary{
		Node: "alpha", Systems: []SystemSummary{{"alpha", "running", false}, {"bravo", "unknown", true}},
		Groups: []GroupSummary{{"data", "alpha", true, false, "faulted"}}, Failed: []FailedPart{{"data", "address", "ip1", "alpha"}},
	}
}

// The answers are a contract: see docs/api.md.
func TestGroupAnswersGolden(t *testing.T) {
	for path, golden := range map[string]string{"/v1/groups": "testdata/groups.json", "/v1/vip": "testdata/vip.json", "/v1/summary": "testdata/summary.json", "/v1/cluster": "testdata/cluster.json", "/v1/node": "testdata/node.json"} {
		rec := httptest.NewRecorder()
		NewGroupHandler(&fakeGroups{}).ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		var got bytes.Buffer
		if err := json.Indent(&got, rec.Body.Bytes(), "", " "); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: the contract changed; fields are only added:\n%s", path, got.Bytes())
		}
	}
}

func TestGroupRequests(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		err                error
		status             int
		code               exit.Code
		order              string
	}{
		{"GET", "/v1/groups/data", "", nil, 200, 0, ""},
		{"GET", "/v1/groups/other", "", nil, 404, exit.Usage, ""},
		{"GET", "/v1/version", "", nil, 200, 0, ""},
		{"POST", "/v1/reload", "", nil, 200, 0, ""},
		{"POST", "/v1/groups/data/switch", "", nil, 200, 0, "data switch "},
		{"POST", "/v1/groups/data/clear", `{"part":"app"}`, nil, 200, 0, "data clear app"},
		{"POST", "/v1/groups/data/online", `{"part":"app"}`, nil, 400, exit.Usage, ""},
		{"POST", "/v1/groups/data/dance", "", nil, 400, exit.Usage, ""},
		{"POST", "/v1/groups/other/online", "", nil, 404, exit.Usage, ""},
		{"POST", "/v1/groups/data/offline?timeout=-1s", "", nil, 400, exit.Usage, ""},
		{"POST", "/v1/groups/data/offline", "", context.DeadlineExceeded, 409, exit.Again, "data offline "},
		{"POST", "/v1/groups/data/offline", "", exit.New(exit.Refused, "unfreeze it", "it is frozen"), 403, exit.Refused, "data offline "},
		{"POST", "/v1/groups/data/offline", "", errors.New("a bug"), 500, exit.Internal, "data offline "},
		{"POST", "/v1/resources/data/own", "", nil, 200, 0, "data own "},
		{"POST", "/v1/resources/data/own", `{"force":true}`, nil, 200, 0, "data own by force"},
		{"POST", "/v1/resources/data/own", "", context.DeadlineExceeded, 409, exit.Again, "data own "},
		{"POST", "/v1/resources/data/own", `{"part":"app"}`, nil, 400, exit.Usage, ""},
		{"POST", "/v1/node/stop", `{"who":"root"}`, nil, 200, 0, "node stop root false false"},
		{"POST", "/v1/node/start", `{"others_are_down":true}`, nil, 200, 0, "node start  false true"},
		{"POST", "/v1/node/start", `{"others_are_down":true,"bootstrap":true}`, nil, 400, exit.Usage, ""},
		{"POST", "/v1/node/abort", `{"bootstrap":true}`, nil, 400, exit.Usage, ""},
		{"POST", "/v1/node/dance", "", nil, 400, exit.Usage, ""},
		{"POST", "/v1/node/stop", "", context.DeadlineExceeded, 409, exit.Again, "node stop  false false"},
		{"DELETE", "/v1/groups/data", "", nil, 404, exit.Usage, ""},
	} {
		told := ""
		f := &fakeGroups{order: func(_ context.Context, group, order, part string) error {
			told = group + " " + order + " " + part
			return c.err
		}}
		rec := httptest.NewRecorder()
		NewGroupHandler(f).ServeHTTP(rec, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		var fail Failure
		if rec.Code != 200 {
			if err := json.Unmarshal(rec.Body.Bytes(), &fail); err != nil || fail.Error == "" {
				t.Errorf("%s %s: %s", c.method, c.path, rec.Body)
			}
		}
		if rec.Code != c.status || fail.Code != c.code || told != c.order {
			t.Errorf("%s %s: status %d, code %d, order %q; %s", c.method, c.path, rec.Code, fail.Code, told, rec.Body)
		}
	}
}

func TestGroupClient(t *testing.T) {
	f := &fakeGroups{order: func(context.Context, string, string, string) error {
		return exit.New(exit.Refused, "unfreeze it", "it is frozen")
	}}
	c := NewGroupClient(serveUnix(t, NewGroupHandler(f)), time.Second)
	if g, err := c.Group(t.Context(), "data"); err != nil || g.Fault == "" || !g.Since.Equal(since) {
		t.Errorf("%+v, %v", g, err)
	}
	if s, err := c.Summary(t.Context()); err != nil || len(s.Systems) != 2 || s.Groups[0].State != "faulted" {
		t.Errorf("%+v, %v", s, err)
	}
	if x, err := c.Cluster(t.Context()); err != nil || x.Votes.TieBreak != "alpha" || x.Nodes[0].Links[0].SilentMS != 3000 {
		t.Errorf("%+v, %v", x, err)
	}
	if v, err := c.VIPs(t.Context()); err != nil || v.VIPs[0].Adverts.Refused["auth"] != 3 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := c.Order(t.Context(), "data", "offline", nil); exit.CodeOf(err) != exit.Refused || exit.HintOf(err) != "unfreeze it" {
		t.Error(err)
	}
	if _, err := NewGroupClient("/nowhere/vipd.sock", time.Second).Groups(t.Context()); exit.CodeOf(err) != exit.Unreachable || !strings.HasPrefix(err.Error(), "vipd is not running") {
		t.Error(err)
	}
}

func TestPartsAreKnownByTheirNames(t *testing.T) {
	p := Part{Name: "data/address/ip1", Address: "192.0.2.10"}
	for name, want := range map[string]bool{"data/address/ip1": true, "ip1": true, "192.0.2.10": true, "": false, "address/ip1": false, "data": false, "ip": false} {
		if PartMatches(p, name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
