package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cluster/view"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// voters are two vipds in this process with votes, and nothing to vote about.
type voters struct {
	t    *testing.T
	dir  string
	end  map[string]func() error
	c    map[string]api.GroupClient
	logs map[string]*safeBuffer
}

func newVoters(t *testing.T, more string) *voters {
	t.Helper()
	v := &voters{t, t.TempDir(), map[string]func() error{}, map[string]api.GroupClient{}, map[string]*safeBuffer{}}
	key, err := conf.GenerateKey()
	if err == nil {
		err = conf.WriteKey(v.path("key"), key)
	}
	port, perr := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil || perr != nil {
		t.Fatal(err, perr)
	}
	port.Close()
	text := fmt.Sprintf(`[cluster]
name = "test"
key-file = %q
quorum = "majority"
lease = "600ms"
rejoin = "200ms"
heartbeat = { port = %d, interval = "50ms", trouble = "400ms", timeout = "800ms" }
[vipd]
http = ""
`, v.path("key"), port.LocalAddr().(*net.UDPAddr).Port)
	for i, name := range []string{"alpha", "bravo"} {
		text += fmt.Sprintf("[node.%s]\nid = %d\naddress = [\"127.0.0.%d\"]\nvipd.control = %q\nvipd.state = %q\n", name, i, i+1, v.path(name+".sock"), v.path(name))
		v.c[name] = api.NewGroupClient(v.path(name+".sock"), soon)
	}
	text += strings.ReplaceAll(more, "$dir", v.dir)
	if err := os.WriteFile(v.path("hast.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, end := range v.end {
			end()
		}
		for name, log := range v.logs {
			if t.Failed() {
				t.Log(name + ":\n" + log.b.String())
			}
		}
	})
	return v
}

func (v *voters) path(name string) string { return filepath.Join(v.dir, name) }

func (v *voters) run(name string) {
	ctx, cancel := context.WithCancel(context.Background())
	if v.logs[name] == nil {
		v.logs[name] = &safeBuffer{}
	}
	ended, log := make(chan error, 1), v.logs[name]
	go func() {
		ended <- daemon.Run(ctx, about, []string{"-c", v.path("hast.toml"), "--node", name}, daemon.Stdio{Out: io.Discard, Err: log}, begin)
	}()
	v.end[name] = sync.OnceValue(func() error { cancel(); return <-ended })
}

func (v *voters) until(name, state string) api.NodeState {
	v.t.Helper()
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		st, err := v.c[name].NodeState(context.Background())
		if err == nil && st.State == state {
			return st
		}
		if time.Now().After(end) {
			v.t.Fatalf("%s is not %s: %+v %v", name, state, st, err)
		}
	}
}

// cluster waits until it is as wanted, as a node knows it.
func (v *voters) cluster(name, what string, ok func(api.Cluster) bool) {
	v.t.Helper()
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		c, err := v.c[name].Cluster(context.Background())
		if err == nil && ok(c) {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("%s: still not: %s: %+v %v", name, what, c, err)
		}
	}
}

func (v *voters) order(name, order string, req api.NodeRequest) api.NodeState {
	v.t.Helper()
	st, err := v.c[name].OrderNode(context.Background(), order, req)
	if err != nil {
		v.t.Fatalf("%s: node %s: %v", name, order, err)
	}
	return st
}

// TestNodeIsStoppedAndStarted: the other one goes on alone, though it was the one that
// breaks no tie, and the stop is remembered.
func TestNodeIsStoppedAndStarted(t *testing.T) {
	t.Parallel()
	v := newVoters(t, "")
	v.run("alpha")
	v.run("bravo")
	v.until("alpha", "running")
	v.until("bravo", "running")
	st := v.order("alpha", "stop", api.NodeRequest{Who: "root"})
	if st.State != "stopped" || st.Reason != api.ReasonStop || st.Last == nil || st.Last.Who != "root" {
		t.Fatalf("%+v", st)
	}
	v.cluster("bravo", "alone", func(c api.Cluster) bool {
		return c.Votes.Quorate && c.Leader == "bravo" && c.Nodes[0].State == "excluded" && c.Nodes[0].Reason == "it stopped"
	})
	if st := v.order("alpha", "stop", api.NodeRequest{}); st.State != "stopped" {
		t.Errorf("stopped twice: %+v", st)
	}
	if st := v.order("alpha", "start", api.NodeRequest{}); st.State != "running" || st.Last == nil {
		t.Errorf("%+v", st)
	}
	v.cluster("bravo", "both", func(c api.Cluster) bool { return c.Nodes[0].State == "member" && c.Nodes[0].Heard })
	if st := v.order("alpha", "abort", api.NodeRequest{Who: "operator"}); st.State != "aborted" || st.Reason != api.ReasonAbort {
		t.Errorf("%+v", st)
	}
	if err := v.end["alpha"](); err != nil {
		t.Error(err)
	}
	v.run("alpha")
	if st := v.until("alpha", "running"); st.Last == nil || st.Last.Reason != api.ReasonAbort || st.Last.Who != "operator" {
		t.Errorf("the abort is forgotten: %+v", st)
	}
}

// TestOthersAreDown: one of two that was down while the other one went on waits for a
// person, who is recorded.
func TestOthersAreDown(t *testing.T) {
	t.Parallel()
	v := newVoters(t, "")
	v.run("alpha")
	v.until("alpha", "joining")
	if _, err := v.c["alpha"].OrderNode(context.Background(), "start", api.NodeRequest{OthersAreDown: true}); exit.CodeOf(err) != exit.Refused || !strings.Contains(exit.HintOf(err), "bootstrap") {
		t.Errorf("where no membership is known: %v", err)
	}
	if st := v.order("alpha", "start", api.NodeRequest{Bootstrap: true, Who: "root"}); st.State != "running" {
		t.Errorf("%+v", st)
	}
	if _, err := v.c["alpha"].OrderNode(context.Background(), "start", api.NodeRequest{Bootstrap: true}); exit.CodeOf(err) != exit.Refused {
		t.Errorf("bootstrap over a membership: %v", err)
	}
	v.run("bravo")
	v.until("bravo", "running")
	if err := v.end["bravo"](); err != nil {
		t.Fatal(err)
	}
	v.cluster("alpha", "alone", func(c api.Cluster) bool { return c.Nodes[1].State == "excluded" })
	if err := v.end["alpha"](); err != nil {
		t.Fatal(err)
	}
	v.run("bravo")
	v.cluster("bravo", "that it waits", func(c api.Cluster) bool { return c.Waits != "" && !c.Joined })
	if st := v.until("bravo", "joining"); st.Detail == "" {
		t.Errorf("%+v", st)
	}
	if st := v.order("bravo", "start", api.NodeRequest{OthersAreDown: true, Who: "operator"}); st.State != "running" {
		t.Errorf("%+v", st)
	}
	v.cluster("bravo", "an era of its own", func(c api.Cluster) bool {
		return c.Era.How == "others-are-down" && c.Era.Who == "operator" && c.Era.By == "bravo" && time.Since(c.Era.When) < time.Hour && strings.HasPrefix(c.Generation, "2.")
	})
	v.run("alpha") // joins what a person began
	v.until("alpha", "running")
	v.cluster("alpha", "the same era", func(c api.Cluster) bool {
		return c.Era.Who == "operator" && len(c.Nodes) == 2 && c.Nodes[1].State == "member"
	})
}

// TestResourceInNoViewIsTakenByForce: the cluster was begun with one node, and the replicas
// were never compared. A person may say that the one here is good, though a group decides.
func TestResourceInNoViewIsTakenByForce(t *testing.T) {
	t.Parallel()
	v := newVoters(t, `
[resource.data]
on.alpha.local = "/dev/vg0/data"
on.bravo.local = "/dev/vg0/data"
[group.data]
nodes = ["alpha", "bravo"]
resources = ["data"]
`)
	v.run("alpha")
	v.until("alpha", "joining")
	impatient := api.NewGroupClient(v.path("alpha.sock"), 300*time.Millisecond)
	if _, err := impatient.OrderNode(t.Context(), "start", api.NodeRequest{}); !strings.Contains(exit.HintOf(err), "--bootstrap") {
		t.Errorf("no membership is known: %v, hint %s", err, exit.HintOf(err))
	}
	v.order("alpha", "start", api.NodeRequest{Bootstrap: true})
	if _, err := v.c["alpha"].Own(t.Context(), "data", false); exit.CodeOf(err) != exit.Refused || !strings.Contains(exit.HintOf(err), "--force") {
		t.Errorf("without force: %v, hint %s", err, exit.HintOf(err))
	}
	// There is no hastd: nobody waits until it is served.
	if _, err := impatient.Own(t.Context(), "data", true); exit.CodeOf(err) == exit.Refused {
		t.Errorf("by force: %v", err)
	}
	v.cluster("alpha", "it owns the resource", func(c api.Cluster) bool {
		return len(c.Resources) == 1 && c.Resources[0].Owner == "alpha"
	})
}

// TestReloadTellsWhatTheVotesDoNotWorkByYet, each time it is asked.
func TestReloadTellsWhatTheVotesDoNotWorkByYet(t *testing.T) {
	t.Parallel()
	resource := func(name string) string {
		return fmt.Sprintf("[resource.%[1]s]\non.alpha.local = \"/dev/vg0/%[1]s\"\non.bravo.local = \"/dev/vg0/%[1]s\"\n", name)
	}
	v := newVoters(t, resource("old"))
	v.run("alpha")
	v.until("alpha", "joining")
	text, err := os.ReadFile(v.path("hast.toml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(`"600ms"`, `"700ms"`, `"200ms"`, `"300ms"`, `"50ms"`, `"60ms"`, resource("old"), resource("new")).Replace(string(text))
	if err := os.WriteFile(v.path("hast.toml"), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := v.c["alpha"].Reload(t.Context())
		if got := strings.Join(r.Restart, ", "); err != nil || got != "cluster.heartbeat, cluster.lease, cluster.rejoin, resource.new added, resource.old removed" {
			t.Errorf("%s, %v", got, err)
		}
	}
}

// slowGroup has a service whose stop takes its time.
const slowGroup = `
[group.data]
nodes = ["alpha", "bravo"]
election = "external"
[[group.data.service]]
name = "slow"
start = ["/bin/sh", "-c", "touch $dir/slow"]
stop = ["/bin/sh", "-c", "sleep 4; rm -f $dir/slow"]
monitor = ["/bin/sh", "-c", "test -e $dir/slow && exit 110; exit 100"]
interval = "1s"
`

// TestStopTakesItsTime: the others know at once that this node leaves; the stop goes on
// after the order ended, and an abort waits for nothing.
func TestStopTakesItsTime(t *testing.T) {
	t.Parallel()
	v := newVoters(t, slowGroup)
	v.run("alpha")
	v.run("bravo")
	v.until("alpha", "running")
	v.until("bravo", "running")
	up := func() {
		t.Helper()
		if _, err := v.c["alpha"].Order(context.Background(), "data", "online", nil); err != nil {
			t.Fatal(err)
		}
	}
	impatient := api.NewGroupClient(v.path("alpha.sock"), 300*time.Millisecond)
	stop := func() {
		t.Helper()
		if _, err := impatient.OrderNode(context.Background(), "stop", api.NodeRequest{}); exit.CodeOf(err) != exit.Again {
			t.Fatalf("a stop that takes long: %v", err)
		}
		v.until("alpha", "stopping")
		if _, err := os.Stat(v.path("slow")); err != nil {
			t.Fatal(err)
		}
		v.cluster("bravo", "that alpha leaves", func(c api.Cluster) bool { return c.Nodes[0].State == "leaving" && c.Leader == "bravo" })
	}
	up()
	stop()
	if _, err := v.c["alpha"].OrderNode(context.Background(), "start", api.NodeRequest{}); exit.CodeOf(err) != exit.Refused {
		t.Errorf("start during a stop: %v", err)
	}
	v.until("alpha", "stopped")
	if _, err := os.Stat(v.path("slow")); err == nil {
		t.Error("it was stopped before its service")
	}
	v.order("alpha", "start", api.NodeRequest{})
	up()
	stop()
	began := time.Now()
	v.order("alpha", "abort", api.NodeRequest{})
	if _, err := os.Stat(v.path("slow")); err != nil {
		t.Errorf("the abort waited for %v", time.Since(began))
	}
}

// TestStopThatLeavesSomethingUpHandsNothingOver: the others wait for the lease, as if the
// node were dead.
func TestStopThatLeavesSomethingUpHandsNothingOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ stop, order string }{
		"it cannot be stopped": {"exit 1", ""},
		"it is frozen":         {"rm -f $dir/slow", "freeze"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := stopThatLeavesSomethingUp(t, "4s", c.stop, c.order)
			c, err := v.c["bravo"].Cluster(context.Background())
			if err != nil || !ownedBy("alpha")(c) {
				t.Errorf("at the end of alpha: %+v, %v", c.Resources, err)
			}
			v.cluster("bravo", "that it owns the group", ownedBy("bravo"))
		})
	}
}

// TestFrozenParallelGroupKeepsNothingFromTheOthers: each node has its own.
func TestFrozenParallelGroupKeepsNothingFromTheOthers(t *testing.T) {
	t.Parallel()
	v := newVoters(t, strings.NewReplacer(`election = "external"`, "", "sleep 4; ", "").Replace(slowGroup)+`
[group.agents]
nodes = ["alpha"]
parallel = true
[[group.agents.service]]
name = "agent"
start = ["/bin/sh", "-c", "touch $dir/agent"]
stop = ["/bin/sh", "-c", "rm -f $dir/agent"]
monitor = ["/bin/sh", "-c", "test -e $dir/agent && exit 110; exit 100"]
interval = "1s"
`)
	v.run("alpha")
	v.run("bravo")
	v.cluster("bravo", "that alpha owns the group", ownedBy("alpha"))
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(v.path("agent")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not started")
		}
	}
	if _, err := v.c["alpha"].Order(context.Background(), "agents", "freeze", nil); err != nil {
		t.Fatal(err)
	}
	if err := v.end["alpha"](); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(v.path("agent")); err != nil {
		t.Error(err)
	}
	v.cluster("bravo", "that it owns the group", ownedBy("bravo"))
}

// TestVipdThatIsBackWithinItsLeaseKeepsWhatWasLeftUp: its node owns it still.
func TestVipdThatIsBackWithinItsLeaseKeepsWhatWasLeftUp(t *testing.T) {
	t.Parallel()
	v := stopThatLeavesSomethingUp(t, "20s", "exit 1", "")
	v.run("alpha")
	v.until("alpha", "running")
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		g, err := v.c["alpha"].Group(context.Background(), "data")
		if err == nil && g.State == "online" && g.Elected {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, %v", g, err)
		}
	}
	v.cluster("bravo", "that alpha owns the group", ownedBy("alpha"))
}

func ownedBy(name string) func(api.Cluster) bool {
	return func(c api.Cluster) bool { return len(c.Resources) == 1 && c.Resources[0].Owner == name }
}

// stopThatLeavesSomethingUp ends the vipd of alpha, which owns a group that stays up.
func stopThatLeavesSomethingUp(t *testing.T, lease, stop, order string) *voters {
	t.Helper()
	v := newVoters(t, strings.NewReplacer(`election = "external"`, "", "sleep 4; rm -f $dir/slow", stop).Replace(slowGroup))
	b, err := os.ReadFile(v.path("hast.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.path("hast.toml"), bytes.Replace(b, []byte(`lease = "600ms"`), []byte(`lease = "`+lease+`"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	v.run("alpha")
	v.run("bravo")
	v.cluster("bravo", "that alpha owns the group", ownedBy("alpha"))
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(v.path("slow")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not started")
		}
	}
	if order != "" {
		if _, err := v.c["alpha"].Order(context.Background(), "data", order, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.end["alpha"](); exit.CodeOf(err) != exit.Again {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(v.path("slow")); err != nil {
		t.Error(err)
	}
	return v
}

// TestNodeWhoseDiskHangsIsGivenUp: its votes cannot be had while they store one. Nobody
// waits for them, and its own stop does not either.
func TestNodeWhoseDiskHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	v := newVoters(t, slowGroup)
	v.run("alpha")
	v.run("bravo")
	v.until("alpha", "running")
	v.until("bravo", "running")
	if _, err := v.c["bravo"].Order(context.Background(), "data", "online", nil); err != nil {
		t.Fatal(err)
	}
	// What is written into a pipe that nobody reads waits.
	pipe := filepath.Join(v.path("bravo"), viewFile+".new")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f, err := os.OpenFile(pipe, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		v.end["bravo"]()
		f.Close()
	})
	impatient := api.NewGroupClient(v.path("bravo.sock"), 300*time.Millisecond)
	if _, err := impatient.OrderNode(context.Background(), "stop", api.NodeRequest{}); exit.CodeOf(err) != exit.Again {
		t.Fatalf("a stop that cannot be voted about: %v", err)
	}
	v.cluster("alpha", "alone", func(c api.Cluster) bool {
		return c.Votes.Quorate && c.Nodes[1].State == "excluded" && !c.Nodes[1].Heard
	})
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(v.path("slow")); err != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("its group stays up")
		}
	}
}

// TestPauseIsNoSilenceOfTheVotes: who wakes after the whole process stood still asks in vain
// once, and accuses nobody. Votes that do not answer while it runs are another matter.
func TestPauseIsNoSilenceOfTheVotes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &conf.Config{}
		c.Cluster.Lease, c.Cluster.Heartbeat = 600*time.Millisecond, conf.Heartbeat{Interval: 50 * time.Millisecond, Timeout: 800 * time.Millisecond}
		q := &quorum{s: &server{o: daemon.Setup{Conf: c}}}
		q.opts.Config.Every = view.Duration(c.Cluster.Heartbeat.Interval)
		var paused, hang atomic.Bool
		alive := func(ctx context.Context) bool {
			switch {
			case paused.Swap(false):
				time.Sleep(time.Minute)
			case hang.Load():
				<-ctx.Done()
			default:
				time.Sleep(10 * time.Millisecond)
			}
			return ctx.Err() == nil
		}
		ended, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			q.watch(alive, ended)
		}()
		quiet := func(what string, least, most time.Duration) {
			t.Helper()
			for began := time.Now(); time.Since(began) < most; time.Sleep(time.Millisecond) {
				if q.mute() != "" {
					if took := time.Since(began); took < least {
						t.Errorf("%s: it falls silent after %v", what, took)
					}
					return
				}
			}
			if least < most {
				t.Errorf("%s: it never falls silent", what)
			}
		}
		paused.Store(true)
		quiet("a pause", 2*time.Minute, 2*time.Minute)
		hang.Store(true)
		quiet("votes that hang", 900*time.Millisecond, 1050*time.Millisecond)
		hang.Store(false)
		time.Sleep(100 * time.Millisecond)
		quiet("votes that answer again", time.Minute, time.Minute)
		close(ended)
		<-over
	})
}

// TestNodeWhoseDiskFailedFallsSilent: it never votes again, and must not be asked.
func TestNodeWhoseDiskFailedFallsSilent(t *testing.T) {
	t.Parallel()
	v := newVoters(t, "[node.charlie]\nid = 2\naddress = [\"127.0.0.3\"]\nvipd.control = \"$dir/charlie.sock\"\nvipd.state = \"$dir/charlie\"\n")
	for _, name := range []string{"alpha", "bravo", "charlie"} {
		v.run(name)
	}
	v.until("alpha", "running")
	v.until("bravo", "running")
	err := fs.ErrExist
	for errors.Is(err, fs.ErrExist) { // it stores one just now
		err = os.Mkdir(filepath.Join(v.path("bravo"), viewFile+".new"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := v.end["charlie"](); err != nil { // this needs another view
		t.Error(err)
	}
	v.until("bravo", "failed")
	v.cluster("alpha", "alone", func(c api.Cluster) bool {
		return c.Votes.Quorate && c.Nodes[1].State == "excluded" && !c.Nodes[1].Heard
	})
}

// hastd carries out one order at a time: an abort comes after the group's own.
func TestForceDownWaitsForAnOrder(t *testing.T) {
	socket := t.TempDir() + "/hastd.sock"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	busy := 3
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if busy--; busy >= 0 {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":"another order for this resource is being carried out","code":75}`)
			return
		}
		fmt.Fprint(w, `{"name":"data","role":"secondary"}`)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := forceDown(ctx, newStorage(socket), "data"); err != nil || busy != -1 {
		t.Errorf("%v, after %d answers", err, 3-busy)
	}
}

// A resource that was added to the file is not unknown: vipd has to be started again.
func TestAddedResourceNeedsARestart(t *testing.T) {
	v := newVoters(t, "")
	v.run("alpha")
	v.until("alpha", "joining")
	added := "[resource.log]\non.alpha.local = \"/nowhere\"\non.bravo.local = \"/nowhere\"\n"
	f, err := os.OpenFile(v.path("hast.toml"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(added); err != nil {
		t.Fatal(err)
	}
	_, err = v.c["alpha"].Own(context.Background(), "log", false)
	if exit.CodeOf(err) != exit.Refused || !strings.Contains(exit.HintOf(err), "hastctl node restart") {
		t.Errorf("%v, hint %q", err, exit.HintOf(err))
	}
	if _, err := v.c["alpha"].Own(context.Background(), "lag", false); exit.CodeOf(err) != exit.Usage {
		t.Errorf("a resource that nobody has: %v", err)
	}
	if r, err := v.c["alpha"].Reload(context.Background()); err != nil || r.Daemon != "vipd" || len(r.Restart) != 1 || r.Restart[0] != "resource.log added" {
		t.Errorf("reload: %+v, %v", r, err)
	}
}
