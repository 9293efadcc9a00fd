package runner

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
	"hastd/replicate"
)

// granter answers every request at once, takes every grant and ends its provider when
// it is told to resume: a machine that decided before this process stood still.
type granter struct{ grant replicate.Grant }

func (g *granter) Step(_ replicate.Instant, batch []replicate.Event, out []replicate.Effect) []replicate.Effect {
	for i := range batch {
		switch ev := &batch[i]; ev.Kind {
		case replicate.EvRequest:
			err := replicate.OK
			if ev.Off != 0 {
				err = replicate.ErrIO
			}
			out = append(out, replicate.Effect{Kind: replicate.EffReply, Req: ev.Req, Err: err})
		case replicate.EvCommand:
			switch ev.Command.Kind {
			case replicate.CmdGrant:
				g.grant = *ev.Command.Grant
			case replicate.CmdResume:
				out = append(out, replicate.Effect{Kind: replicate.EffProviderStop, Op: 1, Force: true})
			}
			out = append(out, replicate.Effect{Kind: replicate.EffAnswer, Command: ev.Command.ID})
		}
	}
	return out
}

func (g *granter) Deadline() (replicate.Instant, bool)       { return 0, false }
func (g *granter) Status(replicate.Instant) replicate.Status { return replicate.Status{Grant: g.grant} }

// Right before an application is told, the lease is looked at once more: it may have
// run out since the machine decided.
func TestNothingIsToldWithoutALease(t *testing.T) {
	r := testResource(t, func(o *Options) { o.NeedLease, o.machine = true, &granter{} })
	r.export.Store(&export{size: 1 << 20, sector: 512})
	c := &client{r: r, done: make(chan *blockdev.Request, 8)}
	ask := func(off int64) {
		c.r.Submit([]*blockdev.Request{{Op: blockdev.OpZero, Off: off, Len: 4096, Owner: c}})
	}
	told := func(what string, want int, err error) {
		t.Helper()
		for i := range want + 1 {
			limit := time.Second
			if i == want {
				limit = 50 * time.Millisecond
			}
			select {
			case q := <-c.done:
				if i == want {
					t.Fatalf("%s: told of more than %d (%v)", what, want, q.Err)
				} else if q.Err != err {
					t.Fatalf("%s: %v, want %v", what, q.Err, err)
				}
			case <-time.After(limit):
				if i < want {
					t.Fatalf("%s: %d were told, want %d", what, i, want)
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	grant := func(d time.Duration) {
		t.Helper()
		g := replicate.Grant{Generation: 1, Owner: true, Until: replicate.Instant(BootNow() + Boottime(d))}
		if err := r.Command(ctx, replicate.Command{Kind: replicate.CmdGrant, Grant: &g}); err != nil {
			t.Fatal(err)
		}
	}
	ask(0)
	told("no lease yet", 0, nil)
	grant(time.Hour)
	told("granted", 1, nil)
	ask(0)
	told("with a lease", 1, nil)
	grant(-time.Second)
	ask(0)
	ask(0)
	told("it has run out", 0, nil)
	ask(4096)
	told("a failure may be told", 1, unix.EIO)
	if err := r.Command(ctx, replicate.Command{Kind: replicate.CmdResume}); err != nil {
		t.Fatal(err)
	}
	told("the device goes away", 2, unix.EIO)
}

// A status is of the moment it is asked for, though nothing woke the machine since: here
// nothing does when the lease ends.
func TestAStatusKnowsThatTheLeaseIsOver(t *testing.T) {
	r := testResource(t, func(o *Options) { o.NeedLease = true })
	until := BootNow() + Boottime(time.Second)
	g := replicate.Grant{Generation: 1, Owner: true, Until: replicate.Instant(until)}
	if err := r.Command(t.Context(), replicate.Command{Kind: replicate.CmdGrant, Grant: &g}); err != nil {
		t.Fatal(err)
	}
	look := func() Snapshot {
		t.Helper()
		s, err := r.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for {
		s := look()
		if over := s.LeaseLeft == 0; over != (s.SuspendReason == "no-lease") {
			t.Fatalf("%v left of the lease, over for %v: it says %q", s.LeaseLeft, s.LeaseOver, s.SuspendReason)
		} else if over {
			return
		}
		time.Sleep(time.Duration(until-BootNow()) + time.Millisecond)
	}
}
