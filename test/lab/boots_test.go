package lab

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// flaps are how often the link of a node that boots comes and goes.
	flaps = 10
	// flapFor is the time in which they happen.
	flapFor = 6 * time.Second
	// bootAlone is long enough to become master with nobody to be heard.
	bootAlone = 5 * time.Second
)

// TestBootsOverAFlappingLink: both nodes boot at once after a power loss under load,
// the cable of one goes out and in at random times, and either may be master for an
// instant. In the end one serves, nothing is lost, nothing split. LAB_BOOTS=10 repeats
// it.
func TestBootsOverAFlappingLink(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, LAN: true, Size: 32 << 20, Seed: *seedFlag})
	f, err := StartFailovers(background(t), l, *seedFlag)
	must(t, err)
	defer f.Stop()
	rng := rand.New(rand.NewPCG(*seedFlag, 0x626f6f74))
	for boot := range int(envInt("LAB_BOOTS", 1)) {
		began := time.Now()
		must(t, f.load.load.WaitAcked(background(t), 200))
		// In each second boot one node died alone before: then the other is ahead.
		first := l.Nodes[rng.IntN(2)]
		ahead := boot%2 == 0
		if ahead {
			first = l.other(owner(t, l, downLimit))
			must(t, f.powerGone(first))
			must(t, f.load.load.WaitAcked(background(t), 200))
		} else {
			must(t, f.powerGone(first))
		}
		must(t, f.load.rest(background(t)))
		must(t, f.load.halted(background(t)))
		must(t, f.powerGone(l.other(first)))
		f.load.on.Store(nowhere)
		f.load.led.Settle()
		f.load.led.PowerLost()

		flapping := l.Nodes[rng.IntN(2)]
		longest := time.Duration(0)
		if ahead {
			// Who is behind is alone for long enough to be elected.
			flapping, longest = l.other(first), bootAlone
		}
		must(t, f.lan.Plug(l.other(flapping).Side, true))
		must(t, f.lan.Plug(flapping.Side, !ahead))
		var wg sync.WaitGroup
		for _, n := range l.Nodes {
			wg.Go(func() {
				if err := errors.Join(n.PowerUp(), n.StartVipd()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			for range flaps {
				if longest == 0 {
					time.Sleep(time.Duration(rng.Int64N(int64(flapFor / flaps))))
				}
				if err := f.lan.Plug(flapping.Side, false); err != nil {
					t.Error(err)
				}
				time.Sleep(longest + time.Duration(rng.Int64N(int64(flapFor/flaps))))
				if s, err := first.Status(); longest > 0 && (err != nil || s.Role == "primary") {
					t.Errorf("%v, which is behind and alone: %v %v", first.Side, s, err)
				}
				longest = 0
				if err := f.lan.Plug(flapping.Side, true); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Wait()
		must(t, f.lan.Plug(flapping.Side, true))
		owner(t, l, downLimit)
		must(t, l.AwaitComplete(syncLimit))
		on := owner(t, l, downLimit) // the first may have been one for an instant
		wantAlone(t, l, on)
		f.load.on.Store(int32(on.Side))
		f.load.goOn()
		must(t, f.load.judge(background(t)))
		for _, n := range l.Nodes {
			if s, err := n.Status(); err != nil || s.Status != "complete" {
				t.Errorf("%v: %v %v", n.Side, s, err)
			}
		}
		t.Logf("boot %d: %v ahead: %v, %v flapped, %v serves, took %v; %v was elected %d times so far, its promotion refused %d times",
			boot+1, l.other(first).Side, ahead, flapping.Side, on.Side, ms(time.Since(began)),
			first.Side, strings.Count(first.VipdLog(), "-> MASTER"), strings.Count(first.VipdLog(), "promotion refused"))
	}
}
