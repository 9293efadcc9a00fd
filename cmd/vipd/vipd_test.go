package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a loaded machine may take for what takes milliseconds.
const soon = 10 * time.Second

// node is a vipd in this process, over files of the test, with one group of two
// services that somebody orders up and down. It needs no privilege.
type node struct {
	t    *testing.T
	dir  string
	http string
	c    api.GroupClient
}

// begin starts the daemon as tests do: it never starts itself again.
func begin(o daemon.Setup) (daemon.Process, error) {
	s, err := start(o, nil)
	if err != nil {
		return nil, err // not a nil *server in an interface
	}
	return s, nil
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func newNode(t *testing.T, cluster string) *node {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := &node{t: t, dir: t.TempDir(), http: l.Addr().String()}
	n.c = api.NewGroupClient(n.path("vipd.sock"), soon)
	service := func(name, requires string) string {
		f := n.path(name)
		return fmt.Sprintf(`
[[group.data.service]]
name = %q
requires = [%s]
start = ["/bin/sh", "-c", "test ! -e %[3]s.bad && touch %[3]s && echo +%[1]s${RESTART_COUNT#0} >>%[4]s"]
stop = ["/bin/sh", "-c", "rm -f %[3]s; echo -%[1]s >>%[4]s"]
monitor = ["/bin/sh", "-c", "test -e %[3]s && exit 110; exit 100"]
interval = "1s"
start-timeout = "5s"
restart-limit = 2
`, name, requires, f, n.path("told"))
	}
	text := fmt.Sprintf(`[cluster]
name = "test"
insecure = true
%s
[vipd]
control = "%s"
http = %q
[node.alpha]
id = 0
address = ["127.0.0.1"]
[node.bravo]
id = 1
address = ["127.0.0.2"]
[group.data]
nodes = ["alpha", "bravo"]
election = "external"
`, cluster, n.path("vipd.sock"), n.http) + service("web", `"db"`) + service("db", "")
	if err := os.WriteFile(n.path("hast.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// change changes the configuration.
func (n *node) change(old, new string) {
	n.t.Helper()
	b, err := os.ReadFile(n.path("hast.toml"))
	if err == nil && strings.Count(string(b), old) == 1 {
		err = os.WriteFile(n.path("hast.toml"), []byte(strings.Replace(string(b), old, new, 1)), 0o600)
	} else if err == nil {
		err = fmt.Errorf("%q stands there %d times", old, strings.Count(string(b), old))
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// run runs the daemon until the returned function is called, which gives its end.
func (n *node) run() (end func() error) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended, log := make(chan error, 1), &safeBuffer{}
	go func() {
		ended <- daemon.Run(ctx, about, []string{"-c", n.path("hast.toml"), "--node", "alpha"}, daemon.Stdio{Out: io.Discard, Err: log}, begin)
	}()
	end = sync.OnceValue(func() error { cancel(); return <-ended })
	n.t.Cleanup(func() {
		end()
		if n.t.Failed() {
			n.t.Log(log.b.String())
		}
	})
	n.wait("it answers", func(api.Group) bool { return true })
	return end
}

func (n *node) wait(what string, ok func(api.Group) bool) api.Group {
	n.t.Helper()
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		g, err := n.c.Group(context.Background(), "data")
		if err == nil && g.Probed && ok(g) {
			return g
		}
		if time.Now().After(end) {
			n.t.Fatalf("still not: %s: %+v %v", what, g, err)
		}
	}
}

func (n *node) told() string {
	b, _ := os.ReadFile(n.path("told"))
	os.Remove(n.path("told"))
	return strings.Join(strings.Fields(string(b)), " ")
}

func (n *node) order(order string) (api.Group, error) {
	return n.c.Order(context.Background(), "data", order, nil)
}

func TestGroupIsOrdered(t *testing.T) {
	n := newNode(t, "")
	end := n.run()
	if g, err := n.order("online"); err != nil || g.State != "online" || g.Online != "alpha" {
		t.Fatalf("%+v, %v", g, err)
	}
	if got := n.told(); got != "+db +web" {
		t.Errorf("what is required goes up first: %s", got)
	}
	if _, err := n.order("switch"); exit.CodeOf(err) != exit.Refused {
		t.Errorf("a switch with an external election: %v", err)
	}
	// Frozen, nothing is looked at and nothing ordered.
	if g, err := n.order("freeze"); err != nil || !g.Frozen {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := n.order("offline"); exit.CodeOf(err) != exit.Refused || !strings.Contains(exit.HintOf(err), "unfreeze") {
		t.Errorf("offline while frozen: %v", err)
	}
	if _, err := n.order("unfreeze"); err != nil {
		t.Error(err)
	}
	// A service that is gone is put up again here.
	os.Remove(n.path("db"))
	n.wait("it is put up again", func(g api.Group) bool { return g.State == "online" && g.Parts[0].Restarts == 1 })
	if got := n.told(); got != "-db +db1" {
		t.Errorf("a restart: %s", got)
	}
	// When that is of no use, it takes the group down, until it is cleared.
	os.WriteFile(n.path("db.bad"), nil, 0o600)
	os.Remove(n.path("db"))
	g := n.wait("the fault is noticed", func(g api.Group) bool { return g.State == "faulted" })
	if !strings.HasPrefix(g.Fault, "data/service/db:") || g.Parts[0].Restarts != 0 {
		t.Errorf("%+v", g)
	}
	if got := n.told(); got != "-db -web -db" {
		t.Errorf("the limit of restarts: %s", got)
	}
	n.scrape(`hast_service_restarts_total{group="data",service="db"} 2`)
	if _, err := n.c.Order(context.Background(), "data", "clear", api.ClearRequest{Part: "web"}); exit.CodeOf(err) != exit.Usage {
		t.Errorf("clear of a part that is well: %v", err)
	}
	if _, err := n.order("online"); exit.CodeOf(err) != exit.Refused || !strings.Contains(err.Error(), "data/service/db") {
		t.Errorf("online over what still fails: %v", err)
	}
	n.wait("it is down again", func(g api.Group) bool { return g.State == "faulted" })
	os.Remove(n.path("db.bad"))
	if g, err := n.c.Order(context.Background(), "data", "clear", api.ClearRequest{Part: "db"}); err != nil || g.Fault != "" {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := n.order("online"); err != nil {
		t.Error(err)
	}
	n.told()
	if err := end(); err != nil {
		t.Error(err)
	}
	if got := n.told(); got != "-web -db" {
		t.Errorf("at the end of vipd: %s", got)
	}
}

// A parallel group is up on every node, unless it is taken offline there.
func TestParallelGroup(t *testing.T) {
	n := newNode(t, "")
	b, _ := os.ReadFile(n.path("hast.toml"))
	os.WriteFile(n.path("hast.toml"), []byte(strings.Replace(string(b), `election = "external"`, "parallel = true", 1)), 0o600)
	n.run()
	n.wait("it is up by itself", func(g api.Group) bool { return g.State == "online" && g.Elected })
	if _, err := n.order("switch"); exit.CodeOf(err) != exit.Refused || !strings.Contains(err.Error(), "parallel") {
		t.Errorf("a switch: %v", err)
	}
	if g, err := n.order("offline"); err != nil || g.State != "offline" {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := n.order("online"); err != nil {
		t.Error(err)
	}
	n.wait("it is up again", func(g api.Group) bool { return g.State == "online" })
}

func TestVipdThatWasKilledLeavesAWholeGroup(t *testing.T) {
	n := newNode(t, "")
	for _, name := range []string{"db", "web"} {
		os.WriteFile(n.path(name), nil, 0o600)
	}
	n.run()
	n.wait("it is adopted", func(g api.Group) bool { return g.State == "online" })
	if got := n.told(); got != "" {
		t.Errorf("nothing was to be done: %s", got)
	}
}

func TestVipdServesMetrics(t *testing.T) {
	n := newNode(t, "")
	n.run()
	n.scrape(`hast_group_state{group="data",node="alpha",state="offline"} 1`)
	n.get("/healthz", "ok")
}

func (n *node) scrape(want string) {
	n.t.Helper()
	n.get("/metrics", want)
}

func (n *node) get(path, want string) {
	n.t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	r, err := http.Get("http://" + n.http + path)
	// The control socket, by which it is known to run, is there before this one.
	for end := time.Now().Add(soon); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		r, err = http.Get("http://" + n.http + path)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != 200 || !strings.Contains(string(b), want) {
		n.t.Errorf("%s has no %s: %s", path, want, b)
	}
}

func TestVipdReload(t *testing.T) {
	n := newNode(t, "")
	n.run()
	b, _ := os.ReadFile(n.path("hast.toml"))
	os.WriteFile(n.path("hast.toml"), []byte(strings.Replace(string(b), `"1s"`, `"2s"`, 1)), 0o600)
	r, err := n.c.Reload(t.Context())
	if err != nil || len(r.Restart) != 1 || r.Restart[0] != "group.data" {
		t.Errorf("%+v, %v", r, err)
	}
}

// Without heartbeats there is no majority: that is no state to start in.
func TestMajorityNeedsHeartbeats(t *testing.T) {
	n := newNode(t, "quorum = \"majority\"\nkey-file = \"/nonexistent/key\"")
	n.change(`insecure = true`, "")
	n.change("[vipd]", fmt.Sprintf("[vipd]\nstate = %q", n.path("state")))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	err := daemon.Run(ctx, about, []string{"-c", n.path("hast.toml"), "--node", "alpha"}, daemon.Stdio{Out: io.Discard, Err: io.Discard}, begin)
	if exit.CodeOf(err) != exit.Config || !strings.Contains(err.Error(), "heartbeats") || exit.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestServicesStandBehindWhatTheyRequire(t *testing.T) {
	var names []string
	for _, s := range inOrder([]conf.Service{{Name: "c", Requires: []string{"a", "b"}}, {Name: "b", Requires: []string{"a"}}, {Name: "x"}, {Name: "a"}}) {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, ""); got != "xabc" {
		t.Errorf("order %s", got)
	}
}

func TestPasswordFileMustBeSafe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pass")
	for _, c := range []struct {
		text string
		mode os.FileMode
		ok   bool
	}{{"secret\n", 0o600, true}, {"secret\n", 0o644, false}, {" \n", 0o600, false}} {
		os.Remove(path)
		os.WriteFile(path, []byte(c.text), c.mode)
		pass, err := readPassword(path)
		if (err == nil) != c.ok || c.ok && string(pass) != "secret" || !c.ok && exit.CodeOf(err) != exit.Config {
			t.Errorf("%q with mode %o: %q, %v", c.text, c.mode, pass, err)
		}
	}
	if _, err := readPassword("/nowhere/pass"); exit.CodeOf(err) != exit.Config {
		t.Error(err)
	}
}
