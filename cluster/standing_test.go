package cluster

import (
	"fmt"
	"strings"
	"testing"
)

func TestStanding(t *testing.T) {
	good := Replica{Name: "data", Reached: true, Role: "secondary", Status: "complete", Connection: "connected",
		Disk: "uptodate", PeerRole: "primary", PeerDisk: "uptodate"}
	with := func(f func(*Replica)) Replica {
		r := good
		f(&r)
		return r
	}
	for name, c := range map[string]struct {
		r        Replica
		fit      bool
		demotion uint8
		says     string
	}{
		"in sync":        {good, true, 0, "data is uptodate here, connected, peer primary"},
		"alone, in sync": {with(func(r *Replica) { r.Connection, r.PeerRole, r.PeerDisk = "connecting", "unknown", "unknown" }), true, 0, "connecting"},
		"new, alone": {with(func(r *Replica) {
			r.New, r.Connection, r.PeerRole, r.PeerDisk = true, "connecting", "unknown", "unknown"
		}), true, 0, "data is new here, connecting, peer unknown"},
		"new, behind":     {with(func(r *Replica) { r.New, r.Disk = true, "outdated" }), true, demotedBehind, "data is outdated here"},
		"behind, helped":  {with(func(r *Replica) { r.Disk = "inconsistent" }), true, demotedBehind, "inconsistent"},
		"no disk, helped": {with(func(r *Replica) { r.Disk = "failed" }), true, demotedDisk, "failed"},
		"behind, alone":   {with(func(r *Replica) { r.Disk, r.Connection = "outdated", "connecting" }), false, 0, "its peer cannot help"},
		"both behind":     {with(func(r *Replica) { r.Disk, r.PeerDisk = "outdated", "inconsistent" }), false, 0, "its peer cannot help"},
		"no disk, alone":  {with(func(r *Replica) { r.Disk, r.Connection = "diskless", "connecting" }), false, 0, "its peer cannot help"},
		"hastd is silent": {Replica{Name: "data"}, false, 0, "hastd does not answer"},
		"split-brain":     {with(func(r *Replica) { r.Connection, r.Status = "split-brain", "split-brain" }), false, 0, "a person must end"},
		"split, serving":  {with(func(r *Replica) { r.Connection, r.Status, r.Role = "split-brain", "split-brain", "primary" }), true, 0, "split-brain"},
		"split, suspended": {with(func(r *Replica) {
			r.Connection, r.Disk, r.Role, r.Suspended = "split-brain", "outdated", "primary", "both-failed"
		}), false, 0, "cannot help"},
		"overtaken":        {with(func(r *Replica) { r.Connection, r.Role, r.Suspended = "refused", "primary", "peer-primary" }), false, 0, "newer"},
		"serves from peer": {with(func(r *Replica) { r.Role, r.Disk = "primary", "failed" }), true, demotedDisk, "failed"},
	} {
		fit, demotion, reason := Standing([]Replica{c.r})
		if fit != c.fit || demotion != c.demotion || !strings.Contains(reason, c.says) {
			t.Errorf("%s: fit %v, demoted by %d, %q; want %v, %d, %q", name, fit, demotion, reason, c.fit, c.demotion, c.says)
		}
	}
	// Of several the worst counts, and each is named.
	fit, demotion, reason := Standing([]Replica{good, with(func(r *Replica) { r.Name, r.Disk = "log", "inconsistent" })})
	if !fit || demotion != demotedBehind || !strings.Contains(reason, "data is") || !strings.Contains(reason, "log is") {
		t.Errorf("of two: fit %v, demoted by %d, %q", fit, demotion, reason)
	}
}

func TestLost(t *testing.T) {
	for _, c := range []struct {
		disk, suspended string
		lost            bool
	}{
		{"uptodate", "", false}, {"uptodate", "peer-lost", false}, {"uptodate", "reconfiguration", false},
		{"uptodate", "no-lease", true}, {"uptodate", "operator", true}, {"uptodate", "peer-primary", true},
		{"failed", "", false}, {"failed", "both-failed", true}, {"diskless", "reconfiguration", true},
	} {
		r := Replica{Role: "primary", Disk: c.disk, Suspended: c.suspended}
		if r.Lost() != c.lost {
			t.Errorf("%+v: lost %v", c, r.Lost())
		}
	}
}

// A promotion is refused because the replica is new; a person says meanwhile that it is the
// good one. That was heard of before the refusal was, and it is no less a reason to try again.
func TestStandingThatChangesDuringTheAttempt(t *testing.T) {
	for _, heard := range []bool{false, true} {
		d := newDesk(t, standard(Part{Name: "group1/resource/data", Kind: Resource, UpLimit: 10 * Second, DownLimit: Second}, service("app")))
		d.tell(Event{Kind: EvStanding, Fit: true, Reason: "data is new here"})
		d.hangs["+data"] = true
		d.tell(Event{Kind: EvElected, Master: true})
		if heard {
			d.tell(Event{Kind: EvStanding, Fit: true, Reason: "data is uptodate here"})
		}
		d.hangs["+data"] = false
		d.tell(Event{Kind: EvDone, Op: d.g.op, Err: "promotion refused: this replica is new"})
		d.is(Faulted)
		d.pass(lastBackoff)
		if heard {
			d.is(Online)
			continue
		}
		d.is(Faulted) // nothing changed: what was refused would be again
		d.tell(Event{Kind: EvStanding, Fit: true, Reason: "data is uptodate here"})
		d.is(Online)
	}
}

// How often a replica was refused has nothing to do with how soon a part that is stuck is
// tried again.
func TestStuckPartIsTriedAgainWhateverWasRefusedBefore(t *testing.T) {
	part := func(name string) Part {
		return Part{Name: "group1/resource/" + name, Kind: Resource, UpLimit: 10 * Second, DownLimit: Second}
	}
	d := newDesk(t, standard(part("log"), part("data")))
	d.fails["+data"] = "promotion refused"
	d.tell(Event{Kind: EvElected, Master: true})
	for n := range 5 {
		d.tell(Event{Kind: EvStanding, Fit: true, Reason: fmt.Sprint("cause ", n)})
		d.pass(lastBackoff)
	}
	d.is(Faulted)
	d.fails["-log"] = "device is busy"
	d.does = nil
	d.tell(Event{Kind: EvStanding, Fit: true, Reason: "another cause"})
	d.did("+log0 +data0 -data -log")
	d.is(Partial)
	d.pass(stuckRetry - 1)
	d.did("")
	d.pass(1)
	d.did("-log")
	delete(d.fails, "-log")
	d.pass(stuckRetry)
	d.did("-log")
	d.is(Faulted)
}

// A preferred node whose last resource cannot be promoted does not take the group from the
// other one again and again: what the other one does meanwhile is the answer to the
// attempt, and that a part of the group went up is no success.
func TestNodeThatCannotBringUpTheLastResource(t *testing.T) {
	part := func(name string) Part {
		return Part{Name: "group1/resource/" + name, Kind: Resource, UpLimit: 10 * Second, DownLimit: Second}
	}
	for _, c := range []struct {
		after string // what is told once this node gave up
		most  int    // attempts
	}{{"peer primary", 1}, {"peer primary for the %d. time", 16}} {
		d := newDesk(t, standard(part("log"), part("data")))
		d.hangs["+log"], d.hangs["+data"] = true, true
		d.tell(Event{Kind: EvStanding, Fit: true, Reason: "peer primary"})
		d.tell(Event{Kind: EvElected, Master: true})
		attempts := 0
		for d.now < Instant(600*Second) {
			if d.g.op != 0 && d.g.isUp {
				attempts++
				d.tell(Event{Kind: EvStanding, Fit: true, Reason: "peer secondary"})
				d.tell(Event{Kind: EvDone, Op: d.g.op})
				d.tell(Event{Kind: EvDone, Op: d.g.op, Err: "its provider could not be started"})
				d.pass(Second / 2)
				d.tell(Event{Kind: EvStanding, Fit: true, Reason: strings.ReplaceAll(c.after, "%d", fmt.Sprint(attempts))})
			}
			d.pass(Second / 2)
		}
		if attempts < 1 || attempts > c.most || c.most > 1 && attempts < c.most/2 {
			t.Errorf("%s: %d attempts in 600 s, want %d at most", c.after, attempts, c.most)
		}
	}
}
