package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The cases of a cluster with votes on real daemons: two nodes with two links, mostly a
// witness, a group under load, a client. Some are always played; LAB_VOTES=all plays all,
// -fault NAME those, and LAB_EVIDENCE=FILE writes what was seen. LAB_STRICT=1 holds to
// the times.

// holdFor is how long something that must not happen does not.
func holdFor() time.Duration {
	if os.Getenv("LAB_EVIDENCE") != "" {
		return 10 * time.Second
	}
	return 3 * time.Second
}

// voteCase is one.
type voteCase struct {
	name string
	o    Options
	on   Side // where the group is at first
	play func(ctx context.Context, v *Votes) (survivor string, err error)
}

var voteCases = []voteCase{
	{"1: storage reset, then the links cut, on the node that is cut off", Options{Witness: true}, Bravo, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.lan.Wall(Way{HostAlpha, HostBravo, AllLinks, true}, Way{HostBravo, HostAlpha, AllLinks, true}))
		must.be(v.lan.Wall(slices.Concat(Between(HostBravo, HostAlpha), Between(HostBravo, HostCharlie))...))
		must.be(v.Serves(ctx, v.l.Nodes[Alpha]))
		must.be(v.Idle(v.l.Nodes[Bravo], holdFor()))
		return "alpha, with the witness", must.err
	}},
	{"2: a replica that missed writes, and the witness", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		must.be(b.KillBoth())
		must.be(v.Says(HostAlpha, "members=\"alpha charlie\""))
		must.be(v.Writes(ctx, fewWrites))
		must.be(a.KillBoth())
		must.be(b.Start())
		must.be(b.StartVipd())
		must.be(v.Says(HostBravo, "does not name this node"))
		must.be(v.Idle(b, holdFor()))
		if _, errs, code := b.Hastctl("role", "primary", Resource); must.err == nil && code != 77 {
			must.be(fmt.Errorf("lab: role primary on bravo ended with %d: %s", code, errs))
		}
		must.be(a.Start())
		must.be(a.StartVipd())
		must.be(v.Serves(ctx, a))
		return "nobody until alpha is back", must.err
	}},
	{"3: the replication port alone is cut", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.lan.Wall(Way{HostAlpha, HostBravo, AllLinks, true}, Way{HostBravo, HostAlpha, AllLinks, true}))
		must.be(v.Says(HostAlpha, "owner=alpha in-sync=alpha"))
		must.be(v.Writes(ctx, fewWrites))
		must.be(v.Stays(v.l.Nodes[Alpha], holdFor()))
		must.be(v.Idle(v.l.Nodes[Bravo], 0))
		return "alpha", must.err
	}},
	{"4: the witness dies, a cut, and the witness back with nothing stored", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.l.KillWitness())
		must.be(v.Says(HostBravo, "members=\"alpha bravo\""))
		must.be(v.lan.Wall(slices.Concat(Between(HostAlpha, HostBravo), Between(HostAlpha, HostCharlie))...))
		must.be(os.RemoveAll(filepath.Join(v.l.witnessDir(), "state")))
		must.be(v.l.StartWitness())
		must.be(v.Writes(ctx, fewWrites))
		must.be(v.Idle(v.l.Nodes[Bravo], holdFor()))
		must.be(v.Stays(v.l.Nodes[Alpha], 0))
		must.be(v.Writes(ctx, fewWrites))
		return "alpha, by the tie", must.err
	}},
	{"5: the witness is lost, then the leader", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		must.be(v.l.KillWitness())
		must.be(v.Says(HostBravo, "members=\"alpha bravo\""))
		must.be(a.KillBoth())
		must.be(v.Says(HostBravo, "which is not enough"))
		must.be(v.Idle(b, holdFor()))
		must.be(a.Start())
		must.be(a.StartVipd())
		must.be(v.Writes(ctx, fewWrites))
		return "nobody until alpha is back", must.err
	}},
	{"6: the nodes cannot hear each other, the witness hears both", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.lan.Wall(Between(HostAlpha, HostBravo)...))
		must.be(v.Says(HostAlpha, "members=\"alpha charlie\""))
		must.be(v.Writes(ctx, fewWrites))
		must.be(v.Stays(v.l.Nodes[Alpha], holdFor()))
		if n := v.Count(HostCharlie, "msg=membership"); must.err == nil && n > 2 {
			must.be(fmt.Errorf("lab: %d memberships: they alternate", n))
		}
		return "alpha with the witness", must.err
	}},
	{"7: the leader is stopped, its stop program sleeps, the links are cut (two nodes)", Options{}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		stopped := make(chan error, 1)
		go func() { stopped <- a.stopVipd(time.Duration(sleepSeconds())*time.Second + stopLimit) }()
		must.be(v.Says(HostBravo, "leaving=alpha"))
		must.be(v.lan.Wall(Between(HostAlpha, HostBravo)...))
		must.be(v.Serves(ctx, b))
		must.be(v.Stays(b, holdFor()))
		must.be(<-stopped)
		must.be(v.lan.Wall())
		must.be(a.StartVipd())
		return "bravo, while alpha still stops", must.err
	}},
	{"8: the clients' network is cut on the node that serves", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.lan.Plug(Alpha, false))
		must.be(v.Serves(ctx, v.l.Nodes[Bravo]))
		must.be(v.Stays(v.l.Nodes[Bravo], holdFor()))
		must.be(v.Idle(v.l.Nodes[Alpha], 0))
		must.be(v.lan.Plug(Alpha, true))
		must.be(v.Stays(v.l.Nodes[Bravo], holdFor()))
		return "bravo", must.err
	}},
	{"10: both daemons are killed, the host lives", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a := first{}, v.l.Nodes[Alpha]
		began := time.Now()
		must.be(a.KillBoth())
		must.be(v.client.addressGone(v.l, a, began))
		must.be(v.Serves(ctx, v.l.Nodes[Bravo]))
		must.be(a.Start())
		must.be(a.StartVipd())
		return "bravo", must.err
	}},
	{"11a: hastd and vipd stand still on the node that serves", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		must.be(a.FreezeVipd())
		must.be(a.Freeze())
		must.be(v.Serves(ctx, b))
		must.be(a.Thaw())
		must.be(a.ThawVipd())
		must.be(v.Idle(a, holdFor()))
		return "bravo", must.err
	}},
	{"11b: hastd alone stands still on the node that serves", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		must.be(a.Freeze())
		must.be(v.Serves(ctx, b))
		must.be(poll(downLimit, func() (bool, error) { return !a.Alive(), nil }))
		must.be(a.gone())
		must.be(a.Start())
		return "bravo, once hastd was killed", must.err
	}},
	{"12: both nodes boot, and cannot hear each other at first", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		must.be(b.KillBoth())
		must.be(v.Says(HostAlpha, "members=\"alpha charlie\""))
		must.be(v.Writes(ctx, fewWrites))
		must.be(a.KillBoth())
		must.be(v.lan.Wall(slices.Concat(Between(HostAlpha, HostBravo), Between(HostAlpha, HostCharlie))...))
		for _, n := range []*Node{a, b} {
			must.be(n.Start())
			must.be(n.StartVipd())
		}
		must.be(v.Idle(b, holdFor()))
		must.be(v.lan.Wall())
		must.be(v.Serves(ctx, a))
		return "alpha, once it is heard", must.err
	}},
	{"12: power is lost everywhere, and a node that missed writes is back first", Options{Witness: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must, a, b := first{}, v.l.Nodes[Alpha], v.l.Nodes[Bravo]
		off := func(n *Node) { must.be(errors.Join(n.KillVipd(), n.PowerLoss())) }
		on := func(n *Node) { must.be(errors.Join(n.PowerUp(), n.StartVipd())) }
		off(b)
		must.be(v.Says(HostAlpha, "members=\"alpha charlie\""))
		must.be(v.Writes(ctx, fewWrites))
		off(a)
		must.be(v.l.KillWitness())
		must.be(v.load.powerLost(ctx))
		on(b)
		must.be(v.l.StartWitness())
		must.be(v.Says(HostBravo, "does not name this node"))
		must.be(v.Idle(b, holdFor()))
		on(a)
		must.be(v.Serves(ctx, a))
		return "nobody until alpha is back", must.err
	}},
	{"two nodes: all links are cut", Options{}, Bravo, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.lan.Wall(Between(HostAlpha, HostBravo)...))
		must.be(v.Serves(ctx, v.l.Nodes[Alpha]))
		must.be(v.Idle(v.l.Nodes[Bravo], holdFor()))
		if must.err == nil {
			must.be(v.Before(HostBravo, "may no longer serve", HostAlpha, "msg=ownership", "owner=alpha"))
		}
		return "alpha, the leader", must.err
	}},
	{"two nodes: only the serial line is left", Options{Line: true}, Alpha, func(ctx context.Context, v *Votes) (string, error) {
		must := first{}
		must.be(v.lan.Wall(Between(HostAlpha, HostBravo)...))
		must.be(v.Says(HostAlpha, "owner=alpha in-sync=alpha"))
		must.be(v.Writes(ctx, fewWrites))
		must.be(v.Stays(v.l.Nodes[Alpha], holdFor()))
		if n := v.Count(HostAlpha, "members=alpha leader"); must.err == nil && n > 0 {
			must.be(fmt.Errorf("lab: bravo was shut out although the line is there"))
		}
		return "alpha; nobody is shut out", must.err
	}},
}

// shortCases are those that are always played.
var shortCases = []string{"1:", "4:", "7:", "8:", "11a:", "two nodes: all"}

// whole says that all are: for the document, or by LAB_VOTES=all.
func whole() bool { return os.Getenv("LAB_EVIDENCE") != "" || os.Getenv("LAB_VOTES") == "all" }

// first keeps the first error; what comes after it is not looked at.
type first struct{ err error }

func (f *first) be(err error) {
	if f.err == nil {
		f.err = err
	}
}

func TestVotes(t *testing.T) {
	var mu sync.Mutex
	results := map[string]VotesResult{}
	t.Run("cases", func(t *testing.T) {
		for _, c := range voteCases {
			if !strings.HasPrefix(c.name, *kindFlag) || *kindFlag == "" && !whole() && !slices.ContainsFunc(shortCases, func(n string) bool { return strings.HasPrefix(c.name, n) }) {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				beside(t)
				o := c.o
				o.Majority, o.TwoLinks, o.Group, o.LAN, o.Size, o.Seed = true, true, true, true, 16<<20, *seedFlag
				o.LogLevel = "info"
				l := newLab(t, o)
				if strings.HasPrefix(c.name, "7") {
					must(t, l.GroupServices(sleepingService))
				}
				v, err := StartVotes(background(t), l, c.on, *seedFlag)
				defer v.Stop()
				must(t, err)
				survivor, err := c.play(background(t), v)
				r := v.Result(c.name, survivor)
				t.Logf("survived: %s; longest pause %v\n%s", r.Survivor, ms(r.Pause), strings.Join(r.Words, "\n"))
				must(t, err)
				must(t, v.End(background(t)))
				mu.Lock()
				results[c.name] = r
				mu.Unlock()
			})
		}
	})
	if path := os.Getenv("LAB_EVIDENCE"); path != "" && !t.Failed() {
		must(t, os.WriteFile(path, []byte(evidence(results)), 0o644))
	}
}

// sleepingService stands for one whose stop program takes long.
var sleepingService = fmt.Sprintf(`
[[group.data.service]]
name     = "app"
start    = ["/usr/bin/touch", "$app"]
stop     = ["/bin/sh", "-c", "sleep %d; rm -f $app"]
stop-timeout = "200s"
monitor  = ["/bin/sh", "-c", "test -e $app && exit 110; exit 100"]
interval = "1s"
`, sleepSeconds())

func sleepSeconds() int {
	if os.Getenv("LAB_EVIDENCE") != "" {
		return 100
	}
	return 12
}

// evidence is the document.
func evidence(results map[string]VotesResult) string {
	var b strings.Builder
	rev, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	fmt.Fprintf(&b, `# A cluster with votes: what was seen

Written by `+"`make evidence-cluster`"+` on %s, revision %s. Real daemons in network namespaces:
two nodes with two links, a witness where the case has one, a group with a service, an
address and a replica under load. Lease %v, margin 5 %% + 0.5 s, heartbeats every 250 ms,
time-out 1.5 s. After each case everything is healed, the replicas are compared, and every
acknowledged write is looked for. The numbers are those of the list of cases in the
specification; those that are not here run in the simulators alone.

| case | who served | longest pause of a client |
| --- | --- | ---: |
`, time.Now().UTC().Format("2006-01-02"), strings.TrimSpace(string(rev)), majorityLease)
	for _, c := range voteCases {
		if r, ok := results[c.name]; ok {
			fmt.Fprintf(&b, "| %s | %s | %.2f s |\n", r.Case, r.Survivor, r.Pause.Seconds())
		}
	}
	for _, c := range voteCases {
		if r, ok := results[c.name]; ok {
			fmt.Fprintf(&b, "\n## %s\n\n```\n%s\n```\n", r.Case, strings.Join(r.Words, "\n"))
		}
	}
	return b.String()
}
