package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

// Failover is why a group moves from its node to the other.
type Failover int

// The reasons.
const (
	BothKilled Failover = iota
	PowerGone
	CablePulled
	SwitchedByHand
	VipdStopped
	VipdFrozen
	BothFrozen
	FailoverKinds
)

func (f Failover) String() string {
	return [...]string{"both killed", "power gone", "cable pulled", "switched by hand", "vipd stopped", "vipd frozen", "both frozen"}[f]
}

// Failovers is a group under load on two nodes of a LAN, which moves again and again.
type Failovers struct {
	l      *Lab
	lan    *LAN
	client *Client
	load   *serviceLoad
	rng    *rand.Rand
}

// FailoverResult is one line of the table at the end.
type FailoverResult struct {
	Kind     Failover
	From     Side
	Pause    time.Duration // longest time without an answer of the service
	Served   time.Duration // from the fault to the first answer of the other node
	Promoted time.Duration // from the fault until the other node was primary
	Overlap  time.Duration // two cards answered for the address
	Back     time.Duration // from the repair until all was in sync
	Acked    int64
}

const (
	// downLimit is how long a group may take to move.
	downLimit = 40 * time.Second
	// overlapSlack is what the client may see of an address beyond its lifetime, and
	// busySlack what it may on a machine that does other things, too.
	overlapSlack = 200 * time.Millisecond
	busySlack    = 1200 * time.Millisecond
	// frozenSlack is how much longer than the time after which a master counts as dead
	// a controller stands still: it counts that from its next advert on.
	frozenSlack = 1500 * time.Millisecond
	// plannedPause is what a client may have to wait in an orderly switch.
	plannedPause = 500 * time.Millisecond
	// fewWrites are acknowledged before and after each fault.
	fewWrites = 100
)

// strict says that the machine does nothing else, and times are held to.
func strict() bool { return os.Getenv("LAB_STRICT") == "1" }

// beyond is how long an address may be seen beyond its lifetime.
func beyond() time.Duration {
	if strict() {
		return overlapSlack
	}
	return busySlack
}

// StartFailovers brings the group up and the load to work.
func StartFailovers(ctx context.Context, l *Lab, seed uint64) (*Failovers, error) {
	lan, ok := l.net.(*LAN)
	if !ok {
		return nil, errors.New("lab: failovers need a LAN")
	}
	f := &Failovers{l: l, lan: lan, rng: rand.New(rand.NewPCG(seed, 0x6f766572))}
	if err := l.startGroup(); err != nil {
		return nil, err
	}
	on, err := l.owner(downLimit)
	if err != nil {
		return nil, err
	}
	if err := l.AwaitComplete(syncLimit); err != nil {
		return nil, err
	}
	if f.load, err = startServiceLoad(ctx, l, on, seed); err != nil {
		return nil, err
	}
	if f.client, err = NewClient(l, l.o.Service); err != nil {
		return f, err
	}
	return f, f.client.Watch(l)
}

// Stop ends load and client.
func (f *Failovers) Stop() {
	if f.client != nil {
		f.client.Close()
	}
	if f.load != nil {
		f.load.stop()
	}
}

// startGroup makes the replicas and starts all daemons.
func (l *Lab) startGroup() error {
	if err := l.CreateAndStart("--assume-clean"); err != nil {
		return err
	}
	if l.o.Witness {
		if err := l.StartWitness(); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes {
		if err := n.StartVipd(); err != nil {
			return err
		}
	}
	return nil
}

// masterDown is the silence after which a node takes a master for dead.
func (l *Lab) masterDown(s Side) time.Duration {
	if l.o.Majority {
		return majorityLease
	}
	skew := time.Duration(s) * 100 // 256ths of an interval, by the order of the nodes
	if l.o.Election == "vrrp" {
		return 3*l.o.Interval + (2+skew)*l.o.Interval/256
	}
	return 3*time.Second + skew*time.Second/256
}

// lifetime is for how long the kernel keeps the address of a node whose controller is
// gone: its masterDown in whole seconds.
func (l *Lab) lifetime(s Side) time.Duration {
	return (l.masterDown(s) + time.Second - 1).Truncate(time.Second)
}

// owner waits until the group is online on one node and offline on the other.
func (l *Lab) owner(limit time.Duration) (on *Node, err error) {
	err = poll(limit, func() (bool, error) {
		a, errA := l.Nodes[Alpha].Group()
		b, errB := l.Nodes[Bravo].Group()
		switch {
		case errA != nil || errB != nil:
			return false, errors.Join(errA, errB)
		case a.State == "online" && b.State == "offline":
			on = l.Nodes[Alpha]
		case a.State == "offline" && b.State == "online":
			on = l.Nodes[Bravo]
		default:
			return false, fmt.Errorf("alpha: %v; bravo: %v", a, b)
		}
		return true, nil
	})
	return on, err
}

// Round moves the group once and judges it.
func (f *Failovers) Round(ctx context.Context, kind Failover) (FailoverResult, error) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	res := FailoverResult{Kind: kind}
	on, err := f.l.owner(downLimit)
	if err != nil {
		return res, err
	}
	other := f.l.other(on)
	if f.l.o.Majority {
		if err := f.l.awaitInSync(downLimit); err != nil {
			return res, err
		}
	}
	res.From = on.Side
	before := f.load.load.Acked()
	f.client.Begin()
	if err := f.load.load.WaitAcked(ctx, 1+f.rng.Int64N(2*fewWrites)); err != nil {
		return res, f.quiet(err)
	}
	err = f.move(ctx, &res, on, other)
	if err == nil {
		err = f.settle(on, other)
	}
	if err == nil {
		err = f.load.judge(ctx)
	}
	seen := f.client.Seen()
	res.Pause, res.Overlap = seen.Pause(), seen.Overlap()
	res.Acked = f.load.load.Acked() - before
	if life := f.l.lifetime(on.Side); err == nil && res.Overlap > life+beyond() {
		err = fmt.Errorf("lab: two cards answered for the address for %v, its lifetime is %v", res.Overlap, life)
	}
	if limit, ok := f.l.pauseLimit(kind); err == nil && ok && strict() && res.Pause > limit {
		err = fmt.Errorf("lab: a client waited %v, more than %v", res.Pause, limit)
	}
	if err != nil {
		return res, fmt.Errorf("round %v on %v: %w", kind, on.Side, err)
	}
	return res, nil
}

// pauseLimit is what a client may have to wait in a cluster with votes, where that is
// promised: what a silent owner keeps its lease for, a margin, and half a second.
func (l *Lab) pauseLimit(kind Failover) (time.Duration, bool) {
	switch kind {
	case BothKilled, PowerGone, CablePulled:
		return max(l.masterDown(Bravo), majorityLease+majorityMargin) + plannedPause, l.o.Majority
	case SwitchedByHand, VipdStopped:
		return plannedPause, l.o.Majority
	}
	return 0, false
}

func (f *Failovers) quiet(err error) error {
	return fmt.Errorf("lab: no write is acknowledged: %w (last answer: %v)", err, f.load.load.LastError())
}

// move is the fault, the other node's taking over, and the repair.
func (f *Failovers) move(ctx context.Context, res *FailoverResult, on, other *Node) error {
	began := time.Now()
	repair, err := f.fault(ctx, res.Kind, on)
	if err != nil {
		return err
	}
	repaired := time.Now()
	if res.Kind == VipdFrozen && !f.l.o.Majority {
		// The other node may not take over while the replica here is primary.
		if err := f.frozen(ctx, on, began); err != nil {
			return errors.Join(err, repair())
		}
		repaired = time.Now()
		if err := repair(); err != nil {
			return err
		}
		repair = nil
	}
	if _, err := other.Wait(downLimit, "its promotion", func(s Status) bool { return s.Role == "primary" }); err != nil {
		return err
	}
	res.Promoted = time.Since(began)
	if err := other.WaitGroup("online", downLimit); err != nil {
		return err
	}
	if err := f.load.load.WaitAcked(ctx, fewWrites); err != nil {
		return f.quiet(err)
	}
	first, err := f.client.served(other.Side, began)
	if err != nil {
		return err
	}
	res.Served = first.Sub(began)
	if repair != nil {
		if res.Kind == BothFrozen && !f.l.o.Majority {
			f.untilReplaced(began)
		}
		repaired = time.Now()
		if err := repair(); err != nil {
			return err
		}
	}
	err = f.l.AwaitComplete(syncLimit)
	res.Back = time.Since(repaired)
	return err
}

// fault makes the group leave its node; repair is what brings the node back.
func (f *Failovers) fault(ctx context.Context, kind Failover, on *Node) (repair func() error, err error) {
	switch kind {
	case BothKilled:
		return func() error { return errors.Join(on.Start(), on.StartVipd()) }, on.KillBoth()
	case PowerGone:
		return func() error { return f.powerUp(on) }, f.powerGone(on)
	case CablePulled:
		return func() error { return f.lan.Plug(on.Side, true) }, f.lan.Plug(on.Side, false)
	case SwitchedByHand:
		out, errs, code := on.Hastctl("group", "switch", GroupName)
		if code != 0 {
			err = fmt.Errorf("lab: group switch: status %d: %s%s", code, out, errs)
		}
		return func() error { return nil }, err
	case VipdStopped:
		return on.StartVipd, on.StopVipd()
	case VipdFrozen:
		return on.ThawVipd, on.FreezeVipd()
	case BothFrozen:
		return func() error { return errors.Join(on.Thaw(), on.ThawVipd()) }, errors.Join(on.FreezeVipd(), on.Freeze())
	}
	return nil, fmt.Errorf("lab: unknown failover %d", kind)
}

// frozen wants of a node whose controller stands still that its address goes in
// time, and that its replica stays as it is and takes writes.
func (f *Failovers) frozen(ctx context.Context, on *Node, since time.Time) error {
	if err := f.client.addressGone(f.l, on, since); err != nil {
		return err
	}
	s, err := on.Status()
	if err != nil {
		return err
	}
	if s.Role != "primary" {
		return fmt.Errorf("lab: %v, whose vipd is frozen, is no longer primary: %v", on.Side, s)
	}
	if err := f.load.load.WaitAcked(ctx, fewWrites); err != nil {
		return f.quiet(err)
	}
	f.untilReplaced(since)
	return nil
}

// addressGone wants the address off a node within its lifetime since its controller
// went: there, and as the client sees it.
func (c *Client) addressGone(l *Lab, n *Node, since time.Time) error {
	card, err := l.net.(*LAN).cardOf(n.Side)
	if err != nil {
		return err
	}
	life := l.lifetime(n.Side)
	err = poll(life+5*time.Second, func() (bool, error) { return !n.HasAddress(), nil })
	gone := time.Since(since)
	if err == nil && gone > life+beyond() {
		err = errors.New("too late")
	}
	if err != nil {
		return fmt.Errorf("lab: the address of %v, without a controller, was gone after %v, its lifetime is %v: %w", n.Side, gone, life, err)
	}
	time.Sleep(overlapSlack) // for what the client still hears
	seen := c.Seen()
	if at, ok := seen.LastBy(card); ok && at.Sub(since) > life+beyond() {
		return fmt.Errorf("lab: %v, without a controller, answered for the address until %v after that, its lifetime is %v", n.Side, at.Sub(since), life)
	}
	return nil
}

// untilReplaced lets a controller stand still for so long that it knows, awake again,
// that another was master meanwhile. One that stood still for a moment goes on as
// before.
func (f *Failovers) untilReplaced(since time.Time) {
	time.Sleep(time.Until(since.Add(f.l.masterDown(Bravo) + frozenSlack))) // the fault itself
}

// powerGone takes a node's power: nobody hears of it, and nothing of it answers.
func (f *Failovers) powerGone(n *Node) error {
	n.vipd.cmd.Process.Kill()
	if err := f.lan.Plug(n.Side, false); err != nil {
		return err
	}
	if err := errors.Join(n.KillVipd(), n.PowerLoss()); err != nil {
		return err
	}
	// What was in its memory.
	run("", f.lan.Command(n.Side, "ip", "addr", "del", prefixed(f.l.o.Service), "dev", linkName)...) // it may be gone already
	return run("", "rm", "-f", n.App())
}

func (f *Failovers) powerUp(n *Node) error {
	if err := f.lan.Plug(n.Side, true); err != nil {
		return err
	}
	return errors.Join(n.PowerUp(), n.StartVipd())
}

// settle wants of the node that came back that it has nothing of the group, and
// follows the other.
func (f *Failovers) settle(back, other *Node) error {
	var last string
	err := poll(downLimit, func() (bool, error) {
		v, errV := back.VIP()
		g, errG := back.Group()
		s, errS := back.Status()
		if err := errors.Join(errV, errG, errS); err != nil {
			return false, err
		}
		last = fmt.Sprintf("election %s, group %v, %v, address %v, service %v", v.State, g, s, back.HasAddress(), back.HasApp())
		return v.State == "backup" && g.State == "offline" && s.Role == "secondary" && !back.HasAddress() && !back.HasApp(), nil
	})
	if err != nil {
		return fmt.Errorf("lab: %v came back and is no backup: %w; %s", back.Side, err, last)
	}
	if s, err := other.Status(); err != nil || s.Role != "primary" || !other.HasAddress() {
		return fmt.Errorf("lab: %v took over and is not what it should be: %v %v, address %v", other.Side, s, err, other.HasAddress())
	}
	return nil
}

// cardOf is the hardware address of a node's end of the link.
func (l *LAN) cardOf(s Side) (card string, err error) {
	err = l.onNode(s, func() error {
		ifc, err := net.InterfaceByName(linkName)
		if err == nil {
			card = ifc.HardwareAddr.String()
		}
		return err
	})
	return card, err
}
