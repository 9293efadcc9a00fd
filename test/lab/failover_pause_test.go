package lab

import (
	"os"
	"testing"
	"time"
)

// pauseLimits are what a client may have to wait, on an idle service: what a silent
// master takes to count as dead, and half a second.
var pauseLimits = map[string]struct{ killed, switched time.Duration }{
	"carp": {3900 * time.Millisecond, 500 * time.Millisecond},
	"vrrp": {time.Second, 500 * time.Millisecond},
}

const (
	// busyPause is what a machine that does other things may take in addition.
	busyPause = 2 * time.Second
	// silentProbe is how long a promotion waits for a sign of life of a peer whose
	// connection still stands.
	silentProbe = time.Second
)

// TestFailoverPause measures how long a client of an idle service waits, after a
// switch by hand and after both daemons of the master were killed.
//
// The pause is the client's: the longest time in which nobody answered. The other node
// may answer later than that after the fault, for two reasons. The kernel of the node
// whose daemons died keeps the address for its lifetime, and an idle service there goes
// on answering. And the promotion asks a peer whose connection still stands for a sign
// of life, for a second: with VRRP that is longer than the election takes.
//
// LAB_PAUSES=5 repeats it, LAB_SERVICE=fd77::100 does it for IPv6, LAB_STRICT=1 holds to
// the limits; else a busy machine has a little more.
func TestFailoverPause(t *testing.T) {
	for election, limit := range pauseLimits {
		t.Run(election, func(t *testing.T) {
			beside(t)
			p := newPauses(t, Options{Election: election, Service: os.Getenv("LAB_SERVICE")}, limit.killed, limit.switched)
			for range max(1, envInt("LAB_PAUSES", 1)) {
				p.each(p.byHand, p.byDeath, p.byDeath, p.byHand)
			}
		})
	}
}

// TestFailoverOfIPv6 does so with CARP for a group that has only an IPv6 address, and
// for one that has both: each of its clients sees the same.
func TestFailoverOfIPv6(t *testing.T) {
	const six = "fd77::100"
	for name, o := range map[string]Options{"IPv6": {Service: six}, "IPv4 and IPv6": {Service: ServiceAddress, Also: six}} {
		t.Run(name, func(t *testing.T) {
			beside(t)
			o.Election = "carp"
			limit := pauseLimits[o.Election]
			p := newPauses(t, o, limit.killed, limit.switched)
			p.each(p.byHand, p.byDeath)
		})
	}
}

// beside lets idle groups be measured beside each other, where a busy machine is allowed
// for anyhow. Beside those no other test runs.
func beside(t *testing.T) {
	if !strict() {
		t.Parallel()
	}
}

// pauses are measured on one group, by a client of each of its addresses.
type pauses struct {
	t                *testing.T
	l                *Lab
	on               *Node
	clients          map[string]*Client
	killed, switched time.Duration
}

func newPauses(t *testing.T, o Options, killed, switched time.Duration) *pauses {
	t.Helper()
	if !strict() {
		killed, switched = killed+busyPause, switched+busyPause
	}
	o.Group, o.LAN, o.Plain, o.Size = true, true, true, 16<<20
	p := &pauses{t: t, l: newLab(t, o), clients: map[string]*Client{}, killed: killed, switched: switched}
	must(t, p.l.startGroup())
	p.on = owner(t, p.l, downLimit)
	must(t, p.l.AwaitComplete(syncLimit))
	for _, a := range []string{p.l.o.Service, p.l.o.Also} {
		if a == "" {
			continue
		}
		c, err := NewClient(p.l, a)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		p.clients[a] = c
	}
	return p
}

// each does one after the other, from a group that is whole.
func (p *pauses) each(faults ...func()) {
	for _, what := range faults {
		what()
		must(p.t, p.l.AwaitComplete(syncLimit))
		p.on = owner(p.t, p.l, downLimit)
	}
}

func (p *pauses) measure(what string, limit time.Duration, fault func()) {
	t, other := p.t, p.l.other(p.on)
	t.Helper()
	for _, c := range p.clients {
		_, err := c.served(p.on.Side, time.Now())
		must(t, err)
	}
	// Who has just been started listens before it takes part.
	must(t, other.WaitVIP("backup", downLimit))
	for _, c := range p.clients {
		c.Begin()
	}
	began := time.Now()
	fault()
	for address, c := range p.clients {
		first, err := c.served(other.Side, began)
		must(t, err)
		seen := c.Seen()
		served, pause := first.Sub(began), seen.Pause()
		t.Logf("%s, %s, %s from %v: the client's longest time without an answer is %v; the other node answers after %v",
			p.l.o.Election, address, what, p.on.Side, ms(pause), ms(served))
		if pause > limit {
			t.Errorf("%s, %s: %s from %v: the client waited %v, more than %v", p.l.o.Election, address, what, p.on.Side, ms(pause), limit)
		}
		if served > limit+silentProbe {
			t.Errorf("%s, %s: %s from %v: the other node answers after %v", p.l.o.Election, address, what, p.on.Side, ms(served))
		}
		if where := p.on.where(address); what == switchedByHand && where != "" {
			t.Errorf("%s is still on %s of %v, which gave it away", address, where, p.on.Side)
		}
	}
	p.on = other
}

const switchedByHand = "switched by hand"

func (p *pauses) byHand() {
	p.t.Helper()
	p.measure(switchedByHand, p.switched, func() {
		if out, errs, code := p.on.Hastctl("group", "switch", GroupName); code != 0 {
			p.t.Fatalf("group switch: status %d: %s%s", code, out, errs)
		}
	})
}

func (p *pauses) byDeath() {
	p.t.Helper()
	dead := p.on
	p.measure("both daemons killed", p.killed, func() { must(p.t, dead.KillBoth()) })
	must(p.t, dead.Start())
	must(p.t, dead.StartVipd())
}
