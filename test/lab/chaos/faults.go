package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hastd/test/lab"
	"hastd/test/lab/disk"
)

// kind is a kind of fault.
type kind struct {
	name   string
	weight int
	do     func(*run, context.Context) (detail string, err error)
	// alone: nothing that may part the nodes happens beside it: who lacks what was
	// acknowledged cannot take over.
	alone bool
	// link: it uses the link itself.
	link bool
}

// kinds are all kinds. Weights say how often each is drawn.
var kinds = []kind{
	{name: "primary's daemon killed, failover", weight: 4, alone: true, do: func(r *run, ctx context.Context) (string, error) {
		return r.crash(ctx, r.node(r.one()), false, true)
	}},
	{name: "primary's daemon killed, restarted", weight: 4, do: func(r *run, ctx context.Context) (string, error) {
		return r.crash(ctx, r.node(r.one()), false, false)
	}},
	{name: "secondary's daemon killed", weight: 3, do: func(r *run, ctx context.Context) (string, error) {
		return r.crash(ctx, r.other(r.one()), false, false)
	}},
	{name: "primary's daemon stopped", weight: 3, do: func(r *run, ctx context.Context) (string, error) {
		return r.freeze(ctx, r.node(r.one()))
	}},
	{name: "secondary's daemon stopped", weight: 3, do: func(r *run, ctx context.Context) (string, error) {
		return r.freeze(ctx, r.other(r.one()))
	}},
	{name: "primary's daemon hangs, killed, failover", weight: 2, alone: true, do: (*run).hangs},
	{name: "primary loses power, failover", weight: 5, alone: true, do: func(r *run, ctx context.Context) (string, error) {
		return r.crash(ctx, r.node(r.one()), true, true)
	}},
	{name: "primary loses power, comes back", weight: 3, do: func(r *run, ctx context.Context) (string, error) {
		return r.crash(ctx, r.node(r.one()), true, false)
	}},
	{name: "secondary loses power", weight: 3, do: func(r *run, ctx context.Context) (string, error) {
		return r.crash(ctx, r.other(r.one()), true, false)
	}},
	{name: "both lose power", weight: 3, do: (*run).bothPower},
	{name: "primary loses power during a sync", weight: 2, alone: true, link: true, do: (*run).powerInSync},
	{name: "link cut", weight: 4, link: true, do: (*run).linkCut},
	{name: "link lossy", weight: 3, link: true, do: func(r *run, ctx context.Context) (string, error) { return r.during(ctx, r.lossy(20)) }},
	{name: "link slow", weight: 3, link: true, do: func(r *run, ctx context.Context) (string, error) { return r.during(ctx, r.slow()) }},
	{name: "disk fails writes", weight: 3, alone: true, do: func(r *run, ctx context.Context) (string, error) { return r.diskFails(ctx, disk.OpWrite) }},
	{name: "disk fails reads", weight: 2, alone: true, do: func(r *run, ctx context.Context) (string, error) { return r.diskFails(ctx, disk.OpRead) }},
	{name: "disk fails flushes", weight: 2, alone: true, do: func(r *run, ctx context.Context) (string, error) { return r.diskFails(ctx, disk.OpFlush) }},
	{name: "disk slow", weight: 3, do: func(r *run, ctx context.Context) (string, error) { return r.during(ctx, r.diskSlow()) }},
	{name: "disk stuck", weight: 3, do: func(r *run, ctx context.Context) (string, error) { return r.during(ctx, r.diskStuck()) }},
	{name: "disk hangs, given up", weight: 2, alone: true, do: (*run).diskHangs},
	{name: "disk replaced", weight: 2, alone: true, do: (*run).diskReplaced},
	{name: "database squeezed", weight: 3, do: func(r *run, ctx context.Context) (string, error) { return r.during(ctx, r.squeezeDatabase()) }},
	{name: "daemon squeezed", weight: 2, do: func(r *run, ctx context.Context) (string, error) { return r.during(ctx, r.squeezeDaemon()) }},
	{name: "role switched", weight: 4, do: (*run).roleSwitch},
}

// one draws a service.
func (r *run) one() *service { return r.services[r.rng.IntN(len(r.services))] }

// condition is a fault that lasts: it begins, and ends.
type condition struct {
	kind  string
	name  string
	begin func() error
	end   func() error
	parts bool // the nodes may lose each other meanwhile
	link  bool
}

// during lets a condition last for some seconds.
func (r *run) during(ctx context.Context, c *condition) (string, error) {
	if c == nil {
		return "not possible here", nil
	}
	if err := c.begin(); err != nil {
		return c.name, err
	}
	if err := r.hold(ctx, time.Second, 6*time.Second); err != nil {
		return c.name, err
	}
	return c.name, c.end()
}

// beside draws what lasts while another fault happens.
func (r *run) beside() *condition {
	switch r.rng.IntN(4) {
	case 0:
		return r.lossy(8)
	case 1:
		return r.slow()
	case 2:
		return r.diskSlow()
	}
	return r.squeezeDatabase()
}

func (r *run) lossy(most int) *condition {
	percent := 1 + r.rng.IntN(most)
	return &condition{
		kind: "link lossy", name: fmt.Sprintf("link loses %d %%", percent), parts: true, link: true,
		begin: func() error { return r.lab.Network().Lose(percent) },
		end:   func() error { return r.lab.Network().Lose(0) },
	}
}

func (r *run) slow() *condition {
	delay := r.between(2*time.Millisecond, 25*time.Millisecond).Round(time.Millisecond)
	rate := int64(1+r.rng.IntN(20)) << 20
	return &condition{
		kind: "link slow", name: fmt.Sprintf("link with %v each way and %d MiB a second", delay, rate>>20), parts: true, link: true,
		begin: func() error { return r.lab.Network().Slow(delay, rate) },
		end:   func() error { return r.lab.Network().Slow(0, 0) },
	}
}

// someDisk draws a disk.
func (r *run) someDisk() (*disk.Process, string) {
	s, n := r.one(), r.lab.Nodes[r.rng.IntN(2)]
	return n.Replica(s.resource()).Disk(), fmt.Sprintf("%s on %v (primary: %v)", s.resource(), n.Side, n.Side == s.active)
}

func (r *run) diskSlow() *condition {
	d, which := r.someDisk()
	by := r.between(5*time.Millisecond, 150*time.Millisecond).Round(time.Millisecond)
	return &condition{
		kind: "disk slow", name: fmt.Sprintf("disk of %s %v slower", which, by),
		begin: func() error { return d.Delay(by) },
		end:   func() error { return d.Delay(0) },
	}
}

func (r *run) diskStuck() *condition {
	d, which := r.someDisk()
	return &condition{kind: "disk stuck", name: "disk of " + which + " stuck", begin: d.Freeze, end: d.Thaw}
}

// squeezeDatabase takes memory from the database: its pages go and come back
// through the device.
func (r *run) squeezeDatabase() *condition {
	if r.groups == nil {
		return nil
	}
	const least = 24 << 20
	c := &condition{kind: "database squeezed", name: "the database's memory", end: r.groups.release}
	c.begin = func() error {
		used := r.groups.database.Usage()
		to, err := squeeze(r.groups.database, max(least, used/2))
		c.name = fmt.Sprintf("the database's memory from %d to %d MiB", used>>20, to>>20)
		return err
	}
	return c
}

// squeezeDaemon leaves a daemon little more memory than it has locked.
func (r *run) squeezeDaemon() *condition {
	if r.groups == nil {
		return nil
	}
	const more = 12 << 20
	side := lab.Side(r.rng.IntN(2))
	g := r.groups.node[side]
	c := &condition{kind: "daemon squeezed", name: "a daemon's memory", end: r.groups.release}
	c.begin = func() error {
		used := g.Usage()
		to, err := squeeze(g, used+more)
		c.name = fmt.Sprintf("hastd on %v uses %d MiB and may use %d", side, used>>20, to>>20)
		return err
	}
	return c
}

func (r *run) freeze(ctx context.Context, n *lab.Node) (string, error) {
	d := r.between(time.Second, 8*time.Second)
	detail := fmt.Sprintf("%v for %v", n.Side, d.Round(time.Millisecond))
	if err := n.Freeze(); err != nil {
		return detail, err
	}
	return detail, errors.Join(sleep(ctx, d), n.Thaw())
}

// hangs: the daemon stands still, the operator loses patience.
func (r *run) hangs(ctx context.Context) (string, error) {
	n := r.node(r.one())
	if !r.isComplete() {
		r.parted = true
	}
	if err := n.Freeze(); err != nil {
		return "", err
	}
	if err := r.hold(ctx, time.Second, 5*time.Second); err != nil {
		return "", errors.Join(err, n.Thaw())
	}
	// Services that are primary on the other node went on alone meanwhile: that
	// node's copy of them is the good one, and stays where it is. Those that
	// stood still have acknowledged nothing, and the other node has all of it.
	mine := r.on(n)
	failover := !r.parted
	if err := n.Kill(); err != nil {
		return "", err
	}
	for _, s := range mine {
		if err := s.stop(ctx); err != nil {
			return "", err
		}
		s.settled()
		if failover {
			if err := r.bring(ctx, s, n.Side.Other()); err != nil {
				return "", err
			}
		}
	}
	if err := n.Start(); err != nil {
		return "", err
	}
	if !failover {
		for _, s := range mine {
			if err := r.bring(ctx, s, n.Side); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("%v (%d services there), failover: %v", n.Side, len(mine), failover), nil
}

func (r *run) bothPower(ctx context.Context) (string, error) {
	first := lab.Side(r.rng.IntN(2))
	detail := fmt.Sprintf("%v first", first)
	for _, side := range []lab.Side{first, first.Other()} {
		if err := r.lab.Nodes[side].PowerLoss(); err != nil {
			return detail, err
		}
	}
	for _, s := range r.services {
		if err := s.stop(ctx); err != nil {
			return detail, err
		}
		s.settled()
		s.powerLost()
	}
	for _, side := range []lab.Side{first, first.Other()} {
		if err := r.lab.Nodes[side].PowerUp(); err != nil {
			return detail, err
		}
	}
	// Apart, either could be behind; connected they know.
	if err := r.lab.AwaitConnected(syncLimit); err != nil {
		return detail, err
	}
	for _, s := range r.services {
		next := lab.Side(r.rng.IntN(2))
		detail += fmt.Sprintf(", %s then on %v", s.resource(), next)
		if err := r.bring(ctx, s, next); err != nil {
			return detail, err
		}
	}
	return detail, nil
}

// powerInSync: the primary is gone while its peer has half of what it missed. The
// peer must refuse, and the primary be waited for.
func (r *run) powerInSync(ctx context.Context) (detail string, err error) {
	p := r.node(r.one())
	s := r.lab.Nodes[p.Side.Other()]
	for _, v := range r.on(s) {
		if err := r.move(ctx, v, false); err != nil {
			return "", err
		}
	}
	if err := s.Kill(); err != nil {
		return "", err
	}
	if err := r.hold(ctx, time.Second, 2*time.Second); err != nil {
		return "", err
	}
	if err := r.lab.Network().Slow(5*time.Millisecond, 200<<10); err != nil {
		return "", err
	}
	if err := s.Start(); err != nil {
		return "", err
	}
	stale := func(v *service) bool {
		st, err := s.Replica(v.resource()).Status()
		return err == nil && st.Disk == "inconsistent"
	}
	met := await(ctx, 10*time.Second, "a sync is under way", func() (bool, error) {
		return stale(r.services[0]) || stale(r.services[1]), nil
	}) == nil
	detail = fmt.Sprintf("%v, sync met: %v", p.Side, met)
	if err := p.PowerLoss(); err != nil {
		return detail, err
	}
	for _, v := range r.services {
		if err := v.stop(ctx); err != nil {
			return detail, err
		}
		v.settled()
		v.powerLost()
	}
	for _, v := range r.services {
		// A link that is gone is noticed after its time-out.
		if _, err := s.Replica(v.resource()).Wait(startLimit, "its peer to be lost", func(st lab.Status) bool { return st.Connection != "connected" }); err != nil {
			return detail, err
		}
		if stale(v) {
			if err := r.mustRefuse(s, v); err != nil {
				return detail, err
			}
			detail += ", " + v.resource() + " refused"
		}
	}
	if err := errors.Join(p.PowerUp(), r.lab.Network().Slow(0, 0)); err != nil {
		return detail, err
	}
	for _, v := range r.services {
		if err := r.bring(ctx, v, p.Side); err != nil {
			return detail, err
		}
	}
	return detail, nil
}

func (r *run) linkCut(ctx context.Context) (string, error) {
	c := []lab.Cut{lab.CutBoth, lab.CutFrom, lab.CutTo, lab.CutReset}[r.rng.IntN(4)]
	side := lab.Side(r.rng.IntN(2))
	d := r.between(500*time.Millisecond, 6*time.Second)
	detail := fmt.Sprintf("%v at %v for %v", c, side, d.Round(time.Millisecond))
	if err := r.lab.Cut(side, c); err != nil {
		return detail, err
	}
	return detail, errors.Join(sleep(ctx, d), r.lab.Heal())
}

func (r *run) roleSwitch(ctx context.Context) (string, error) {
	chosen := r.services
	if k := r.rng.IntN(len(chosen) + 1); k < len(chosen) {
		chosen = chosen[k : k+1]
	}
	detail := ""
	for _, s := range chosen {
		detail += fmt.Sprintf("%s from %v ", s.resource(), s.active)
		if err := r.move(ctx, s, false); err != nil {
			return detail, err
		}
	}
	return detail, nil
}
