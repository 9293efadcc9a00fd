package runner

import (
	"context"
	"maps"
	"slices"
	"time"

	"hastd/metadata"
	"hastd/replicate"
)

// ProviderInfo is the front end being served.
type ProviderInfo struct {
	Kind string
	Path string
	Size int64
}

// Snapshot is a resource at one moment.
type Snapshot struct {
	replicate.Status
	Name, Node, Peer string
	Mode             replicate.Mode
	PeerID           metadata.NodeID
	Provider         *ProviderInfo // nil: there is none
	PeerAddress      string        // of the session, else ""
	PeerPath         int
	RoundTrip        time.Duration // 0: not known
	BuffersFree      int64         // bytes of application memory not in use
	Requests         int           // application requests under way
	Quorum           bool          // the cluster's view decides: Status.Grant
	LeaseLeft        time.Duration // … and how long its lease lasts
	LeaseOver        time.Duration // … or how long it has been over; 0: there was none
	Metrics          Metrics
}

// Status tells the present state.
func (r *Resource) Status(ctx context.Context) (Snapshot, error) {
	// Made on the owner for nobody else to touch: a reader that gave up waiting
	// must not find it half written.
	c := make(chan *Snapshot, 1)
	err := r.onOwner(ctx, func() { c <- r.snapshot() })
	if err != nil {
		return Snapshot{}, err
	}
	return *<-c, nil
}

func (r *Resource) snapshot() *Snapshot {
	now := r.turnAt // when the machine looked at its times
	s := &Snapshot{
		Status: r.machine.Status(now),
		Name:   r.opts.Resource, Node: r.opts.Node, Peer: r.opts.Peer, PeerID: r.opts.PeerID,
		Mode:        r.opts.Mode,
		BuffersFree: r.appMem.Free(),
		Requests:    r.front.inflight,
		Metrics:     r.metrics.Metrics,
	}
	if r.opts.NeedLease {
		s.Quorum = true
		if until := s.Grant.Until; until != 0 {
			left := time.Duration(until - now)
			s.LeaseLeft, s.LeaseOver = max(left, 0), max(-left, 0)
		}
	}
	if p, e := r.provider, r.export.Load(); p != nil && e != nil {
		s.Provider = &ProviderInfo{p.Kind(), p.Path(), e.size}
	}
	if r.session != nil {
		h := r.session.s.Hello()
		s.PeerAddress, s.PeerPath, s.RoundTrip = h.Remote, h.Path, r.session.s.RoundTrip()
	}
	if why := r.link.lastRefusal(); why != "" && s.Connection == "connecting" && s.Role != metadata.Init && s.Disk != "failed" {
		s.Reason = r.opts.Peer + " is not connected: " + why
	}
	return s
}

// apart says to the peer's administrator why no session is made with this node.
func (r *Resource) apart() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	what := r.opts.Resource + " on " + r.opts.Node
	c := make(chan replicate.Status, 1)
	if r.onOwner(ctx, func() { c <- r.machine.Status(r.now()) }) != nil {
		return what + " does not answer"
	}
	switch st := <-c; {
	case st.Role == metadata.Init:
		return r.opts.Resource + " is init on " + r.opts.Node
	case st.Marks.Has(metadata.AdminDisconnected):
		return r.opts.Node + " was disconnected by an administrator; hastctl connect " + r.opts.Resource + " there ends it"
	case st.Disk == "failed":
		return "the disk of " + what + " failed"
	}
	return what + " does not take part now"
}

// localSpeaks says whether the local replica alone can tell what the device
// holds: to tell that a hole is there is to answer a read.
func (r *Resource) localSpeaks() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ok := make(chan bool, 1)
	if r.onOwner(ctx, func() { ok <- r.disk != nil && r.mayAnswer() && r.machine.Status(r.now()).Reads }) != nil {
		return false
	}
	return <-ok
}

func sortedKeys(ms ...map[string]string) []string {
	all := make(map[string]struct{})
	for _, m := range ms {
		for k := range m {
			all[k] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
