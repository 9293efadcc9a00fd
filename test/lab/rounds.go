package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"hastd/test/lab/disk"
	"hastd/test/lab/ledger"
	"hastd/test/lab/nbdclient"
)

// Fault is what happens in a round.
type Fault int

// The faults.
const (
	PrimaryPower Fault = iota
	SecondaryPower
	BothPower
	LinkCut
	DiskFails
	RoleSwitch
	DaemonFrozen
	FaultKinds
)

func (f Fault) String() string {
	return [...]string{"primary power", "secondary power", "both power", "link cut", "disk fails writes", "role switched", "daemon frozen"}[f]
}

// RoundsOptions describe a run of rounds.
type RoundsOptions struct {
	Lab   *Lab
	Seed  uint64
	Acked int64 // acknowledged writes in each round at least
}

// Rounds is a pair under load, in which faults happen one after the other.
type Rounds struct {
	o       RoundsOptions
	rng     *rand.Rand
	led     *ledger.Ledger
	load    *ledger.Load
	size    int64
	primary atomic.Int32 // a Side
}

// RoundResult is one line of the table at the end.
type RoundResult struct {
	Fault  Fault
	Detail string
	Counts ledger.Counts
	Took   time.Duration
}

// Limits of waiting in a round.
const (
	roundLimit = 3 * time.Minute
	syncLimit  = 90 * time.Second
)

// StartRounds makes alpha primary, waits until both are in sync and starts the
// load, which rests until the first round.
func StartRounds(ctx context.Context, o RoundsOptions) (*Rounds, error) {
	r := &Rounds{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x726f756e64))}
	if err := o.Lab.CreateAndStart(); err != nil {
		return nil, err
	}
	if err := o.Lab.AwaitConnected(syncLimit); err != nil {
		return nil, err
	}
	if err := r.promote(Alpha); err != nil {
		return nil, err
	}
	if err := r.complete(); err != nil {
		return nil, err
	}
	c, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.size = c.Size
	c.Close()
	r.led = ledger.New(ledger.Options{Size: r.size, Seed: o.Seed})
	r.load = ledger.Start(ctx, ledger.LoadOptions{Ledger: r.led, Connect: r.connect, Seed: o.Seed})
	if err := r.load.Pause(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Stop ends the load.
func (r *Rounds) Stop() {
	if r.load != nil {
		r.load.Stop()
	}
}

func (r *Rounds) p() *Node { return r.o.Lab.Nodes[r.primary.Load()] }
func (r *Rounds) s() *Node { return r.o.Lab.Nodes[Side(r.primary.Load()).Other()] }

// connect is the client's way to the primary of the moment.
func (r *Rounds) connect(ctx context.Context) (*nbdclient.Client, error) {
	for {
		c, err := r.p().NBD(ctx)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// promote makes a node primary; a daemon that is busy noticing that its peer is
// gone is asked again.
func (r *Rounds) promote(s Side) error {
	err := poll(startLimit, func() (bool, error) {
		err := r.o.Lab.Nodes[s].Role("primary", false)
		if no, ok := errors.AsType[*Refusal](err); ok && no.Code == CodeBusy {
			return false, err
		}
		return true, err
	})
	if err != nil {
		return err
	}
	s0, err := r.o.Lab.Nodes[s].Status()
	if err != nil {
		return err
	}
	if s0.Role != "primary" {
		return fmt.Errorf("lab: %v was asked to be primary and is %v", s, s0)
	}
	r.primary.Store(int32(s))
	return nil
}

// complete waits until both say so.
func (r *Rounds) complete() error {
	for _, n := range r.o.Lab.Nodes {
		if err := n.WaitStatus("complete", syncLimit); err != nil {
			return err
		}
	}
	return nil
}

// more lets n more writes be acknowledged.
func (r *Rounds) more(ctx context.Context, n int64) error {
	if err := r.load.WaitAcked(ctx, n); err != nil {
		s, serr := r.p().Status()
		return fmt.Errorf("lab: only %d writes were acknowledged so far: %w (last answer: %v; primary: %v %v)", r.load.Acked(), err, r.load.LastError(), s, serr)
	}
	return nil
}

// Round does one round and judges it.
func (r *Rounds) Round(ctx context.Context, f Fault) (RoundResult, error) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	began, before, start := time.Now(), r.led.Counts(), r.load.Acked()
	res := RoundResult{Fault: f}
	detail, err := r.happen(ctx, f)
	res.Detail = detail
	if err == nil {
		err = r.load.WaitTotal(ctx, start+r.o.Acked)
	}
	if err == nil {
		err = r.judge(ctx)
	}
	res.Counts, res.Took = r.led.Counts().Sub(before), time.Since(began)
	if err != nil {
		return res, fmt.Errorf("round %v (%s): %w", f, detail, err)
	}
	return res, nil
}

// happen lets the load write, the fault happen, the load go on, and all be well
// again, sync under load included.
func (r *Rounds) happen(ctx context.Context, f Fault) (detail string, err error) {
	r.load.Resume()
	quarter := r.o.Acked / 4
	if err := r.more(ctx, 1+r.rng.Int64N(2*quarter)); err != nil {
		return "", err
	}
	switch f {
	case PrimaryPower:
		detail, err = r.primaryPower(ctx)
	case SecondaryPower:
		detail, err = r.secondaryPower(ctx, quarter)
	case BothPower:
		detail, err = r.bothPower(ctx)
	case LinkCut:
		detail, err = r.linkCut(ctx, quarter)
	case DiskFails:
		detail, err = r.diskFails(ctx, quarter)
	case RoleSwitch:
		detail, err = r.roleSwitch(ctx)
	case DaemonFrozen:
		detail, err = r.frozen()
	default:
		return "", fmt.Errorf("lab: unknown fault %d", f)
	}
	if err != nil {
		return detail, err
	}
	return detail, r.complete()
}

// over makes sure that no request is under way and none of the past will be.
func (r *Rounds) over(ctx context.Context) error {
	return r.load.Halt(ctx)
}

func (r *Rounds) primaryPower(ctx context.Context) (string, error) {
	p, s := r.p(), r.s()
	detail := p.Side.String()
	if err := p.PowerLoss(); err != nil {
		return detail, err
	}
	if err := r.over(ctx); err != nil {
		return detail, err
	}
	// The peer has every acknowledged write, in its cache at least.
	if err := r.promote(s.Side); err != nil {
		return detail, err
	}
	r.led.Settle()
	r.load.Resume()
	if err := r.more(ctx, r.o.Acked/4); err != nil {
		return detail, err
	}
	return detail, p.PowerUp()
}

func (r *Rounds) secondaryPower(ctx context.Context, writes int64) (string, error) {
	s := r.s()
	if err := s.PowerLoss(); err != nil {
		return s.Side.String(), err
	}
	if err := r.more(ctx, writes); err != nil {
		return s.Side.String(), err
	}
	return s.Side.String(), s.PowerUp()
}

func (r *Rounds) bothPower(ctx context.Context) (string, error) {
	first, second := r.p(), r.s()
	if r.rng.IntN(2) == 0 {
		first, second = second, first
	}
	next := Side(r.rng.IntN(2))
	detail := fmt.Sprintf("%v first, %v primary after", first.Side, next)
	if err := errors.Join(first.PowerLoss(), second.PowerLoss()); err != nil {
		return detail, err
	}
	if err := r.over(ctx); err != nil {
		return detail, err
	}
	r.led.Settle()
	r.led.PowerLost()
	if err := errors.Join(first.PowerUp(), second.PowerUp()); err != nil {
		return detail, err
	}
	// Apart, either could be behind; connected they know.
	if err := r.o.Lab.AwaitConnected(syncLimit); err != nil {
		return detail, err
	}
	if err := r.promote(next); err != nil {
		return detail, err
	}
	r.load.Resume()
	return detail, nil
}

func (r *Rounds) linkCut(ctx context.Context, writes int64) (string, error) {
	c := []Cut{CutBoth, CutFrom, CutTo, CutReset}[r.rng.IntN(4)]
	side := Side(r.rng.IntN(2))
	detail := fmt.Sprintf("%v at %v", c, side)
	if err := r.o.Lab.Cut(side, c); err != nil {
		return detail, err
	}
	if err := r.more(ctx, writes); err != nil {
		return detail, err
	}
	return detail, r.o.Lab.Heal()
}

func (r *Rounds) diskFails(ctx context.Context, writes int64) (string, error) {
	n := r.o.Lab.Nodes[r.rng.IntN(2)]
	wasPrimary := n == r.p()
	fault := disk.Fault{Op: disk.OpWrite, After: r.rng.IntN(50)}
	detail := fmt.Sprintf("%v (primary: %v), after %d", n.Side, wasPrimary, fault.After)
	if err := n.Disk.Fail(fault); err != nil {
		return detail, err
	}
	if err := r.more(ctx, writes); err != nil {
		return detail, err
	}
	if _, err := n.Wait(syncLimit, "its disk to be told as failed", func(s Status) bool { return s.Disk == "failed" || s.Disk == "diskless" }); err != nil {
		return detail, err
	}
	if wasPrimary {
		// A person moves the service off the node with the bad disk, and then
		// puts a good one in: here the same, with what it held before.
		if err := r.over(ctx); err != nil {
			return detail, err
		}
		if err := n.Role("secondary", true); err != nil {
			return detail, err
		}
		if err := r.promote(n.Side.Other()); err != nil {
			return detail, err
		}
		r.led.Settle()
		r.load.Resume()
	}
	if err := n.Stop(); err != nil {
		return detail, err
	}
	if err := n.Disk.Heal(); err != nil {
		return detail, err
	}
	return detail, n.Start()
}

func (r *Rounds) roleSwitch(ctx context.Context) (string, error) {
	p, s := r.p(), r.s()
	detail := fmt.Sprintf("%v to %v", p.Side, s.Side)
	// In use: it needs force, and says so.
	if no, ok := errors.AsType[*Refusal](p.Role("secondary", false)); !ok || no.Code != CodeBusy {
		return detail, fmt.Errorf("lab: demotion of a primary in use was answered with %v, want code %d", no, CodeBusy)
	}
	if err := p.Role("secondary", true); err != nil {
		return detail, err
	}
	if err := r.over(ctx); err != nil {
		return detail, err
	}
	if err := r.promote(s.Side); err != nil {
		return detail, err
	}
	r.led.Settle()
	r.load.Resume()
	return detail, nil
}

func (r *Rounds) frozen() (string, error) {
	n := r.o.Lab.Nodes[r.rng.IntN(2)]
	d := time.Second + time.Duration(r.rng.Int64N(int64(3*time.Second)))
	detail := fmt.Sprintf("%v (primary: %v) for %v", n.Side, n == r.p(), d.Round(time.Millisecond))
	if err := n.Freeze(); err != nil {
		return detail, err
	}
	time.Sleep(d) // the fault itself
	return detail, n.Thaw()
}

// judge lets the load rest, flushes, compares the replicas and asks the ledger.
func (r *Rounds) judge(ctx context.Context) error {
	if err := r.load.Pause(ctx); err != nil {
		return fmt.Errorf("requests do not end: %w", err)
	}
	if err := r.load.Flush(ctx); err != nil {
		return fmt.Errorf("the last flush: %w", err)
	}
	if err := r.complete(); err != nil {
		return err
	}
	if err := r.o.Lab.CompareReplicas(r.size); err != nil {
		return err
	}
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	rep, err := r.led.Check(c, true)
	if err != nil {
		return err
	}
	return rep.Err()
}
