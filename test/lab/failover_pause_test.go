package lab

import (
	"os"
	"testing"
	"time"
)

// pauseLimits are what a client may have to wait, on an idle service.
var pauseLimits = map[string]struct{ killed, switched time.Duration }{
	"carp": {3900 * time.Millisecond, 500 * time.Millisecond},
	"vrrp": {time.Second, 500 * time.Millisecond},
}

// TestFailoverPause measures how long a client of an idle service waits: until the
// other node answers, after both daemons of the master were killed, and after a switch
// by hand. LAB_PAUSES=5 repeats it, LAB_SERVICE=fd77::100 does it for IPv6,
// LAB_STRICT=1 holds to the limits; else a busy machine has a little more.
func TestFailoverPause(t *testing.T) {
	for election, limit := range pauseLimits {
		t.Run(election, func(t *testing.T) { failoverPause(t, election, limit.killed, limit.switched) })
	}
}

const (
	// busyPause is what a machine that does other things may take in addition.
	busyPause = 2 * time.Second
	// awaitsWord is how long a promotion waits for word of a peer that has just been
	// lost, on the node which is called and does not call: it cannot ask.
	awaitsWord = time.Second
)

func failoverPause(t *testing.T, election string, killed, switched time.Duration) {
	if !strict() {
		killed, switched = killed+busyPause, switched+busyPause
	}
	l := newLab(t, Options{Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: election, Service: os.Getenv("LAB_SERVICE")})
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	must(t, l.AwaitComplete(syncLimit))
	c, err := NewClient(l)
	must(t, err)
	defer c.Close()
	measure := func(what string, limit time.Duration, fault func() (again bool)) {
		t.Helper()
		other := l.other(on)
		_, err := c.served(on.Side, time.Now())
		must(t, err)
		// Who has just been started listens before it takes part.
		must(t, poll(downLimit, func() (bool, error) {
			v, err := other.VIP()
			return v.State == "backup", err
		}))
		c.Begin()
		began := time.Now()
		for fault() {
			c.Begin()
			began = time.Now()
		}
		first, err := c.served(other.Side, began)
		must(t, err)
		seen := c.Seen()
		served := first.Sub(began)
		t.Logf("%s: %s from %v: the other node answers after %v, the longest time without an answer is %v", election, what, on.Side, ms(served), ms(seen.Pause()))
		if served > limit || seen.Pause() > limit {
			t.Errorf("%s: %s from %v: more than %v", election, what, on.Side, limit)
		}
		on = other
	}
	byHand := func() {
		until := time.Now().Add(3 * time.Second)
		measure("switched by hand", switched, func() bool {
			out, errs, code := on.Hastctl("group", "switch", GroupName)
			// vipd asks four times a second how the replicas are.
			again := code == CodeRefused && time.Now().Before(until)
			if code != 0 && !again {
				t.Fatalf("group switch: status %d: %s%s", code, out, errs)
			}
			return again
		})
	}
	byDeath := func() {
		dead, limit := on, killed
		if election == "vrrp" && dead.Side == Alpha {
			limit += awaitsWord // CARP's silence is longer than that
		}
		measure("both daemons killed", limit, func() bool { must(t, dead.KillBoth()); return false })
		must(t, dead.Start())
		must(t, dead.StartVipd())
	}
	for range max(1, envInt("LAB_PAUSES", 1)) {
		for _, what := range []func(){byHand, byDeath, byDeath, byHand} {
			what()
			must(t, l.AwaitComplete(syncLimit))
			on = owner(t, l, downLimit)
		}
	}
}
