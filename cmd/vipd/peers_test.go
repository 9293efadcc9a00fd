package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hastd/cluster"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// notes is a console that keeps what is written to it.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) Warn(lines []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, lines...)
}

func (n *notes) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

// newPair is vipd of both nodes in this process. Reports are handed over by the test, as
// heartbeats would.
func newPair(t *testing.T) (servers [2]*server, consoles [2]*notes) {
	n := newNode(t, "")
	text, err := os.ReadFile(n.path("hast.toml"))
	if err != nil {
		t.Fatal(err)
	}
	own := "[node.bravo]\nvipd.control = \"" + n.path("bravo.sock") + "\"\nvipd.http = \"\"\n"
	if err := os.WriteFile(n.path("hast.toml"), []byte(strings.Replace(string(text), "[node.bravo]\n", own, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := conf.Load(n.path("hast.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"alpha", "bravo"} {
		node, err := c.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		consoles[i] = &notes{}
		servers[i], err = startWith(daemon.Setup{Conf: c, Node: node, Log: slog.New(slog.DiscardHandler)}, outside{console: consoles[i]})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { servers[i].Stop() })
	}
	for _, s := range servers {
		eventually(t, "it is probed", func() bool { return s.Groups()[0].Probed })
	}
	return servers, consoles
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func ordered(t *testing.T, s *server, order string) error {
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return s.Order(ctx, "data", order, "")
}

func TestReportsOfPeers(t *testing.T) {
	servers, consoles := newPair(t)
	alpha, bravo := servers[0], servers[1]
	tell := func(from, to *server) {
		t.Helper()
		if err := to.Heard(from.Node(), from.Report()); err != nil {
			t.Fatal(err)
		}
	}
	states := func(s *server) (list []string) {
		sum := s.ClusterSummary()
		for i, g := range sum.Groups {
			list = append(list, sum.Systems[i].State, g.System+" "+g.State)
		}
		return list
	}
	if err := ordered(t, alpha, "online"); err != nil {
		t.Fatal(err)
	}
	if got := states(bravo); !slices.Equal(got, []string{"unknown", "alpha unknown", "running", "bravo offline"}) {
		t.Errorf("before a report: %v", got)
	}
	tell(alpha, bravo)
	eventually(t, "bravo knows where the group is", func() bool { return bravo.Groups()[0].Online == "alpha" })
	if got := states(bravo); !slices.Equal(got, []string{"running", "alpha online", "running", "bravo offline"}) {
		t.Errorf("after a report: %v", got)
	}
	if g := bravo.ClusterSummary().Groups[0]; !g.Probed || g.AutoDisabled {
		t.Errorf("%+v", g)
	}
	// What is online there is not put up here.
	if err := ordered(t, bravo, "online"); exit.CodeOf(err) != exit.Refused || !strings.Contains(err.Error(), "it is online on alpha") {
		t.Errorf("online on a second node: %v", err)
	}
	// Not heard any more, it may be; once they meet again both say what is wrong.
	bravo.Lost("alpha")
	if got := states(bravo)[0]; got != "faulted" {
		t.Errorf("a lost node is %s", got)
	}
	if err := ordered(t, bravo, "online"); err != nil {
		t.Fatal(err)
	}
	const want = "Resource db is online on bravo\nResource web is online on bravo\n" +
		"CurrentCount increased above 1 for failover group\nWARNING: Concurrency violation!!! group=\"data\" hosts=(bravo alpha)"
	eventually(t, "both say it", func() bool {
		tell(alpha, bravo)
		tell(bravo, alpha)
		return consoles[0].text() != "" && consoles[1].text() != ""
	})
	if got := consoles[0].text(); got != want {
		t.Errorf("alpha's console:\n%s", got)
	}
	if g := alpha.Groups()[0]; g.Count != 2 || !slices.Equal(g.Hosts, []string{"alpha", "bravo"}) {
		t.Errorf("%+v", g)
	}
}

func TestReportsThatAreNotBelieved(t *testing.T) {
	servers, _ := newPair(t)
	alpha := servers[0]
	good := servers[1].Report()
	for name, c := range map[string]struct {
		node string
		body []byte
	}{
		"from itself":   {"alpha", good},
		"from a nobody": {"charlie", good},
		"cut":           {"bravo", good[:len(good)-1]},
		"empty":         {"bravo", nil},
	} {
		if err := alpha.Heard(c.node, c.body); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	alpha.Lost("charlie")
	if got := alpha.ClusterSummary(); len(got.Systems) != 2 || got.Systems[1].State != "unknown" {
		t.Errorf("%+v", got)
	}
	// Of a group that is not this node's nothing is known.
	other := cluster.Report{Groups: []cluster.GroupReport{{Name: "other", State: cluster.Online}}}
	if err := alpha.Heard("bravo", other.Append(nil)); err != nil {
		t.Error(err)
	}
	if got := alpha.ClusterSummary().Groups; len(got) != 2 || got[1] != (api.GroupSummary{Group: "data", System: "bravo", AutoDisabled: true, State: "unknown"}) {
		t.Errorf("%+v", got)
	}
}
