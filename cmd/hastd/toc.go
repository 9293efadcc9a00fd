package main

import (
	"context"
	"time"

	"hastd/cluster/fence"
	frunner "hastd/cluster/fence/runner"
	"hastd/conf"
	"hastd/metadata"
)

// With toc, a primary whose lease is over and that nobody takes down in time takes its
// machine down: vipd may be dead, and another node serves soon. What it wrote meanwhile
// was acknowledged to nobody; reads and effects outside storage are what this ends.

const (
	// leaseEvery is the time between two looks at the leases, and bounds one.
	leaseEvery = 200 * time.Millisecond
	// leaseNews is what a hastd that stood still has to hear of a lease that vipd, which
	// did not, has renewed meanwhile.
	leaseNews = time.Second
)

// host is what this machine goes down by.
type host interface {
	Warn(line string) error
	Reset(how fence.Mode) error
}

// leaseWatch looks at the leases of resources.
type leaseWatch struct {
	grace time.Duration // from the end of a lease
	// over are the resources whose lease is over, and for how long it has been.
	over func(ctx context.Context) map[string]time.Duration
	down func(resource string)
}

// run looks until ctx ends, or once it took the machine down. The grace counts from the
// end of a lease, as the others count: this process may have stood still since.
func (w *leaseWatch) run(ctx context.Context) {
	type ending struct{ at, seen time.Time }
	since := map[string]ending{}
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		now := map[string]ending{}
		for name, over := range w.over(ctx) {
			e, known := since[name]
			if !known {
				e.seen = time.Now()
				e.at = e.seen.Add(-over)
			}
			now[name] = e
			if time.Since(e.at) >= w.grace && time.Since(e.seen) >= min(w.grace, leaseNews) {
				w.down(name)
				return
			}
		}
		since = now
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// leasesOver are the resources that are primary by a lease that ran out. One that was
// given back is no such thing.
func (d *server) leasesOver(ctx context.Context) map[string]time.Duration {
	list := map[string]time.Duration{}
	for _, u := range d.all() {
		if u.run == nil {
			continue
		}
		if over, ok := leaseOver(ctx, u); ok {
			list[u.name] = over
		}
	}
	return list
}

func leaseOver(ctx context.Context, u *unit) (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(ctx, leaseEvery)
	defer cancel()
	s, err := u.run.Status(ctx)
	return s.LeaseOver, err == nil && s.Quorum && s.Role == metadata.Primary && s.Grant.Owner && s.LeaseLeft == 0
}

func (d *server) toc(h host, how fence.Mode, resource string) {
	words := fence.Words(about.Name, d.node.Name, "", "the lease of resource "+resource+" is over, and it is still primary")
	d.log.Error(words)
	if err := h.Warn(words); err != nil {
		d.log.Error("the kernel's log has no word of it", "reason", err)
	}
	if err := h.Reset(how); err != nil {
		d.log.Error("this machine could not be made to go down", "reason", err)
	}
}

func watchesLeases(c *conf.Config) bool {
	return c.Cluster.TOC != conf.TOCOff && c.Cluster.Quorum == conf.QuorumMajority
}

// armTOC begins to look at the leases if that can lead to anything.
func (d *server) armTOC() {
	if !watchesLeases(d.conf) {
		return
	}
	c := &d.conf.Cluster
	system := frunner.OpenSystem() // now: when it is needed, a disk may not answer any more
	w := leaseWatch{
		grace: max(c.WatchdogTimeout-c.Lease, 0), // members promise to wait as long as the watchdog takes
		over:  d.leasesOver,
		down:  func(resource string) { d.toc(system, fence.Mode(c.TOC), resource) },
	}
	d.wg.Go(func() {
		defer system.Close()
		w.run(d.ctx)
	})
}
