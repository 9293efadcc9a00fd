package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	carp "hastd/carp/runner"
	"hastd/cluster/fence"
	frunner "hastd/cluster/fence/runner"
	"hastd/cluster/member"
	votes "hastd/cluster/member/runner"
	"hastd/cluster/view"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// box is a machine that notes what becomes of it.
type box struct {
	mu     sync.Mutex
	feeds  int
	opened []string
	did    []string
}

func (b *box) note(what string) { b.mu.Lock(); defer b.mu.Unlock(); b.did = append(b.did, what) }

func (b *box) open(path string, timeout time.Duration) (frunner.Watchdog, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = append(b.opened, path+" "+timeout.String())
	return b, nil
}

func (b *box) Counts() time.Duration    { return 0 }
func (b *box) Feed() error              { b.mu.Lock(); defer b.mu.Unlock(); b.feeds++; return nil }
func (b *box) Disarm() error            { b.note("disarm"); return nil }
func (b *box) Warn(line string) error   { b.note(line); return nil }
func (b *box) Reset(m fence.Mode) error { b.note(string(m)); return errors.New("not here") }
func (b *box) told() (feeds int, did string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.feeds, strings.Join(b.did, "; ")
}

// fenced runs a vipd on a box. Its groups are the node's.
func (n *node) fenced(b *box) (*server, error) {
	n.t.Helper()
	c, err := conf.Load(n.path("hast.toml"))
	if err != nil {
		n.t.Fatal(err)
	}
	self, err := c.Self("alpha")
	if err != nil {
		n.t.Fatal(err)
	}
	s, err := startWith(daemon.Setup{Conf: c, Node: self, Flags: daemon.Flags{File: n.path("hast.toml")}, Log: slog.New(slog.DiscardHandler)}, outside{quietConsole{}, b.open, b})
	if err == nil {
		n.t.Cleanup(func() { _ = s.Stop() })
		n.wait("it answers", func(api.Group) bool { return true })
	}
	return s, err
}

type quietConsole struct{}

func (quietConsole) Warn([]string) {}

// failfast makes the service db one whose failure takes the machine down.
func (n *node) failfast() {
	n.edit(`name = "db"`, "name = \"db\"\nfailfast = true")
}

func (n *node) edit(from, to string) {
	n.t.Helper()
	b, err := os.ReadFile(n.path("hast.toml"))
	if err != nil || !strings.Contains(string(b), from) {
		n.t.Fatalf("%s: %v", from, err)
	}
	if err := os.WriteFile(n.path("hast.toml"), []byte(strings.Replace(string(b), from, to, 1)), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

const tocOn = "toc = \"reset\"\nwatchdog-timeout = \"2s\"\nwatchdog = \"/dev/watchdog7\""

func TestWatchdogIsFedUntilACleanEnd(t *testing.T) {
	n, b := newNode(t, tocOn), &box{}
	s, err := n.fenced(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.opened) != 1 || b.opened[0] != "/dev/watchdog7 2s" {
		t.Errorf("opened: %v", b.opened)
	}
	if _, err := n.order("online"); err != nil {
		t.Fatal(err)
	}
	n.wait("it is fed", func(api.Group) bool { feeds, _ := b.told(); return feeds > 1 })
	n.scrape(`hast_watchdog_state{state="fed"} 1`)
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, did := b.told(); did != "disarm" {
		t.Errorf("at a clean end: %s", did)
	}
	// It was disarmed when nothing was up any more, not before.
	if got := n.told(); got != "+db +web -web -db" {
		t.Errorf("%s", got)
	}
	feeds, _ := b.told()
	time.Sleep(time.Second)
	if more, _ := b.told(); more != feeds {
		t.Error("it is fed after the end")
	}
}

// TestStopFeedsWhileAGroupGoesDown: a stop program may take longer than the watchdog.
func TestStopFeedsWhileAGroupGoesDown(t *testing.T) {
	n, b := newNode(t, strings.Replace(tocOn, "2s", "1s", 1)), &box{}
	n.edit(`stop = ["/bin/sh", "-c", "rm`, `stop = ["/bin/sh", "-c", "sleep 2; rm`)
	s, err := n.fenced(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.order("online"); err != nil {
		t.Fatal(err)
	}
	before, _ := b.told()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if after, did := b.told(); after-before < 3 || did != "disarm" {
		t.Errorf("fed %d times meanwhile; %s", after-before, did)
	}
}

// TestStopThatLeavesSomethingUp: the next vipd takes care of it, or the watchdog does.
func TestStopThatLeavesSomethingUp(t *testing.T) {
	n, b := newNode(t, tocOn), &box{}
	n.edit(`stop = ["/bin/sh", "-c", "rm`, `stop = ["/bin/sh", "-c", "exit 1; rm`)
	s, err := n.fenced(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.order("online"); err != nil {
		t.Fatal(err)
	}
	n.wait("it is fed", func(api.Group) bool { feeds, _ := b.told(); return feeds > 1 })
	if err := s.Stop(); exit.CodeOf(err) != exit.Again {
		t.Errorf("%v", err)
	}
	feeds, did := b.told()
	if !strings.Contains(did, "not everything is down") || strings.Contains(did, "disarm") {
		t.Errorf("at its end: %s", did)
	}
	time.Sleep(time.Second)
	if more, _ := b.told(); more != feeds {
		t.Error("it is fed after the end")
	}
}

// TestFrozenGroupIsLeftAloneWithoutVotes: no lease says how long others wait, and a person
// wanted it to stay.
func TestFrozenGroupIsLeftAloneWithoutVotes(t *testing.T) {
	n, b := newNode(t, tocOn), &box{}
	s, err := n.fenced(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []string{"online", "freeze"} {
		if _, err := n.order(order); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, did := b.told(); did != "disarm" {
		t.Errorf("at its end: %s", did)
	}
	if got := n.told(); got != "+db +web" {
		t.Errorf("%s", got)
	}
}

func TestFailfastTakesTheMachineDown(t *testing.T) {
	n, b := newNode(t, tocOn), &box{}
	n.failfast()
	if _, err := n.fenced(b); err != nil {
		t.Fatal(err)
	}
	if _, err := n.order("online"); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(n.path("db.bad"), nil, 0o600)
	os.Remove(n.path("db"))
	n.wait("it goes down", func(api.Group) bool { _, did := b.told(); return strings.HasSuffix(did, "; reset") })
	feeds, did := b.told()
	if !strings.HasPrefix(did, "vipd: node alpha, group data: data/service/db: ") || !strings.Contains(did, ": performing TOC to ensure data integrity; reset") {
		t.Errorf("%s", did)
	}
	time.Sleep(time.Second)
	if more, _ := b.told(); more != feeds {
		t.Error("it is fed after that")
	}
	n.scrape(`hast_watchdog_state{state="fencing"} 1`)
}

func TestOffOpensNothing(t *testing.T) {
	n, b := newNode(t, `toc = "off"`), &box{}
	n.failfast()
	if _, err := n.fenced(b); err != nil {
		t.Fatal(err)
	}
	n.scrape(`hast_watchdog_state{state="off"} 1`)
	if _, err := n.order("online"); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(n.path("db.bad"), nil, 0o600)
	os.Remove(n.path("db"))
	n.wait("the fault is noticed", func(g api.Group) bool { return g.State == "faulted" })
	if feeds, did := b.told(); feeds != 0 || did != "" || len(b.opened) != 0 {
		t.Errorf("%d feeds, %q, opened %v", feeds, did, b.opened)
	}
}

// TestWatchdogThatIsMissing: vipd does not run half protected.
func TestWatchdogThatIsMissing(t *testing.T) {
	n := newNode(t, "toc = \"crash\"\nwatchdog = \"/dev/watchdog-of-another-machine\"")
	for _, name := range []string{"db", "web"} {
		os.WriteFile(n.path(name), nil, 0o600)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	err := daemon.Run(ctx, about, []string{"-c", n.path("hast.toml"), "--node", "alpha"}, daemon.Stdio{Out: io.Discard, Err: io.Discard}, begin)
	if exit.CodeOf(err) != exit.Config || !strings.Contains(exit.HintOf(err), "softdog") || !strings.Contains(err.Error(), `toc = "crash"`) {
		t.Errorf("%v; %s", err, exit.HintOf(err))
	}
	// What was found up stays so.
	if got := n.told(); got != "" {
		t.Errorf("%s", got)
	}
}

func TestReloadSaysThatTOCNeedsARestart(t *testing.T) {
	n, b := newNode(t, tocOn), &box{}
	if _, err := n.fenced(b); err != nil {
		t.Fatal(err)
	}
	n.edit(tocOn, "toc = \"off\"\nwatchdog-timeout = \"3s\"")
	r, err := n.c.Reload(t.Context())
	if got := strings.Join(r.Restart, " "); err != nil || got != "cluster.toc cluster.watchdog cluster.watchdog-timeout" {
		t.Errorf("%s, %v", got, err)
	}
}

// TestElectionThatHangs: one that has not begun is not hung, one whose owner does not
// answer is.
func TestElectionThatHangs(t *testing.T) {
	e := newElection()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if !e.alive(ctx) {
		t.Error("it has not begun")
	}
	e.run = carp.New(carp.Options{}) // nobody runs it
	e.runs.Store(true)
	if e.alive(ctx) {
		t.Error("nobody answers")
	}
}

// TestVotesThatHang: votes that do not run are not hung, those are whose owner does not
// answer.
func TestVotesThatHang(t *testing.T) {
	run, err := votes.New(votes.Options{Config: member.Config{View: view.Config{Nodes: []view.NodeConfig{{}}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{quorum: &quorum{}}
	s.quorum.cur.Store(run) // nobody runs it
	parts := s.watched()
	if len(parts) != 1 || parts[0].Limit < 10*time.Second {
		t.Fatalf("watched: %+v", parts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if !parts[0].Alive(ctx) {
		t.Error("they have not begun")
	}
	s.quorum.end = func() {}
	if parts[0].Alive(ctx) {
		t.Error("nobody answers")
	}
}

// TestSystemdIsAnsweredWhileADiskIsSlow: systemd waits less than the watchdog's part of the
// votes does, and what it does to vipd has the watchdog bite.
func TestSystemdIsAnsweredWhileADiskIsSlow(t *testing.T) {
	run, err := votes.New(votes.Options{Config: member.Config{View: view.Config{Nodes: []view.NodeConfig{{}}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{quorum: &quorum{end: func() {}}}
	s.quorum.cur.Store(run) // nobody runs it
	for silent, alive := range map[time.Duration]bool{0: true, 20 * time.Second: true, votesLimit: true, votesLimit + time.Second: false} {
		s.quorum.silent.Store(int64(silent))
		if got := s.Alive(50 * time.Millisecond); got != alive {
			t.Errorf("after %v: %v", silent, got)
		}
	}
}
