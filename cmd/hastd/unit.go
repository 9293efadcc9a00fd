package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/metrics"
	"hastd/conf"
	"hastd/metadata"
	"hastd/replicate"
	"hastd/replicate/runner"
	"hastd/transport"
)

// unit is one resource as the daemon holds it: running, or told why it cannot.
type unit struct {
	name   string
	node   string
	peer   string
	local  string                        // path of the component
	paths  []string                      // to the peer, as "own address-peer's address"
	conf   atomic.Pointer[conf.Resource] // as far as it is in force
	run    *runner.Resource              // nil: it could not be made
	err    error                         // why not
	pumped chan struct{}                 // closed when the last event went to the hub
}

// unitMaker is what units are made from.
type unitMaker struct {
	conf  *conf.Config
	node  *conf.Node
	hastd conf.Hastd
	key   []byte
	hub   *api.Hub
	log   *slog.Logger
}

func (d *server) maker() *unitMaker {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return &unitMaker{conf: d.conf, node: d.node, hastd: d.hastd, key: d.key, hub: &d.hub, log: d.log}
}

// unit makes a resource. It never fails: what is wrong is the unit's status.
func (m *unitMaker) unit(r *conf.Resource) *unit {
	on, _ := r.OnNode(m.node.Name)
	u := &unit{name: r.Name, node: m.node.Name, peer: api.Unknown, local: on.Local}
	u.conf.Store(r)
	opts, err := m.runnerOptions(r)
	if err == nil {
		u.peer = opts.Peer
		u.paths = m.pathNames(opts.Peer)
		u.run, err = runner.New(opts)
	}
	if err != nil {
		u.err = err
		m.log.Error("resource does not work", "resource", r.Name, "reason", err)
		return u
	}
	u.pumped = make(chan struct{})
	events, _ := u.run.Subscribe()
	go u.pump(events, m.hub, m.log)
	return u
}

// pump ends when the resource is closed. The hub never waits, so it does not fall
// behind for long; should it all the same, it begins anew.
func (u *unit) pump(events <-chan runner.Event, hub *api.Hub, log *slog.Logger) {
	defer close(u.pumped)
	for {
		dropped := false
		for ev := range events {
			hub.Publish(api.Event(ev))
			dropped = ev.Kind == api.KindDropped
		}
		if !dropped {
			return
		}
		log.Warn("events of a resource were missed", "resource", u.name)
		events, _ = u.run.Subscribe()
	}
}

// setLive notes the settings that came into force while it ran.
func (u *unit) setLive(r *conf.Resource) {
	c := *u.conf.Load()
	c.OnPeerLoss, c.StartAs = r.OnPeerLoss, r.StartAs
	c.Sync.MaxRate, c.Sync.LatencyTarget = r.Sync.MaxRate, r.Sync.LatencyTarget
	u.conf.Store(&c)
}

// runnerOptions translates the configuration.
func (m *unitMaker) runnerOptions(r *conf.Resource) (runner.Options, error) {
	on, ok := r.OnNode(m.node.Name)
	if !ok {
		return runner.Options{}, fmt.Errorf("resource %s has no component on node %s", r.Name, m.node.Name)
	}
	peer, err := m.conf.Peer(r.Name, m.node.Name)
	if err != nil {
		return runner.Options{}, err
	}
	mode, err := parseMode(r.Replication)
	if err != nil {
		return runner.Options{}, err
	}
	return runner.Options{
		Resource: r.Name, Node: m.node.Name, Peer: peer.Name,
		NodeID: metadata.NodeID(m.node.ID), PeerID: metadata.NodeID(peer.ID),
		Mode: mode, Live: live(r), NeedLease: m.conf.Cluster.Quorum == conf.QuorumMajority,
		Timeout: r.Timeout, DiskTimeout: r.DiskTimeout,
		Component: on.Local, Metadata: on.Metadata,
		Provider: string(r.Provider), ProviderPath: on.ProviderPath,
		StateDir: m.hastd.State, RunDir: filepath.Dir(m.hastd.Control), Exec: m.hastd.Exec,
		Transport: transport.Options{
			Cluster: m.conf.Cluster.Name, Resource: r.Name, Node: m.node.Name, Peer: peer.Name,
			Key: m.key, Insecure: m.key == nil,
			Checksum: string(r.Checksum), Compression: string(r.Compression),
			Timeout: r.Timeout, Build: build.Read().String(), Logger: m.log,
		},
		Paths:  paths(m.conf, m.node, peer),
		Shared: m.conf.SharedHashOf(r.Name),
		Log:    m.log,
	}, nil
}

// paths are the nodes' addresses pairwise. Only the node with the lower id has
// any: it dials, the other one listens.
func paths(c *conf.Config, self, peer *conf.Node) []transport.Path {
	if self.ID > peer.ID {
		return nil
	}
	hastd, _ := c.Effective(peer)
	var ps []transport.Path
	for i := range min(len(self.Addresses), len(peer.Addresses)) {
		ps = append(ps, transport.Path{
			Local:  self.Addresses[i].String(),
			Remote: net.JoinHostPort(peer.Addresses[i].String(), strconv.Itoa(hastd.Port)),
		})
	}
	return ps
}

// pathNames name the paths to a peer alike on the side that dials and the one that
// listens.
func (m *unitMaker) pathNames(peer string) []string {
	p, err := m.conf.Node(peer)
	if err != nil {
		return nil
	}
	var names []string
	for i := range min(len(m.node.Addresses), len(p.Addresses)) {
		names = append(names, m.node.Addresses[i].String()+"-"+p.Addresses[i].String())
	}
	return names
}

func parseMode(m conf.ReplicationMode) (replicate.Mode, error) {
	switch m {
	case conf.FullSync:
		return replicate.Fullsync, nil
	case conf.MemSync:
		return replicate.Memsync, nil
	case conf.Async:
		return replicate.Async, nil
	}
	return 0, fmt.Errorf("unknown replication mode %q", m)
}

// live are the settings that can change while the resource runs.
func live(r *conf.Resource) replicate.Live {
	return replicate.Live{
		Suspend:       r.OnPeerLoss == conf.PeerLossSuspend,
		MaxRate:       r.Sync.MaxRate,
		LatencyTarget: replicate.Instant(r.Sync.LatencyTarget),
	}
}

func (u *unit) command(ctx context.Context, c replicate.Command) error {
	if u.run == nil {
		return exit.New(exit.IO, "mend what is wrong, then hastctl reload", "resource %s on node %s does not work: %w", u.name, u.node, u.err)
	}
	return u.run.Command(ctx, c)
}

// close stops the resource cleanly as far as ctx allows.
func (u *unit) close(ctx context.Context) error {
	if u.run == nil {
		return nil
	}
	err := u.run.Close(ctx)
	<-u.pumped
	return err
}

// sample asks the resource for its state.
func (u *unit) sample(ctx context.Context) metrics.Sample {
	if u.run == nil {
		return metrics.Sample{Resource: u.failed(u.err.Error())}
	}
	s, err := u.run.Status(ctx)
	if err != nil {
		why := fmt.Sprintf("resource %s does not answer: %v", u.name, err)
		if errors.Is(err, context.DeadlineExceeded) {
			why = fmt.Sprintf("resource %s does not answer in time", u.name)
		}
		return metrics.Sample{Resource: u.failed(why)}
	}
	return sampleOf(&s, u.local, u.paths)
}

// failed is the status of a resource that cannot tell its own.
func (u *unit) failed(why string) api.Resource {
	return api.Resource{
		Name: u.name, Role: "init", Status: "failed", Connection: "standalone", Disk: "failed",
		Replication: string(u.conf.Load().Replication),
		Peer:        api.Peer{Node: u.peer, Role: api.Unknown, Disk: api.Unknown, Address: api.Unknown},
		Resuid:      metadata.ID(0).String(), Sync: api.Sync{State: "idle"}, Reason: why,
		Marks: []string{}, Local: u.local,
	}
}

// sampleOf translates what the runner tells into the words of the contract and
// the metrics.
func sampleOf(s *runner.Snapshot, local string, paths []string) metrics.Sample {
	m := metrics.Sample{
		Resource: api.Resource{
			Name: s.Name, Role: s.Role.String(), Status: s.Status.Status, Connection: s.Connection, Disk: s.Disk,
			Replication: s.Mode.String(),
			Peer:        api.Peer{Node: s.Peer, Role: known(s.PeerRole), Disk: known(s.PeerDisk), Address: known(s.PeerAddress)},
			Resuid:      s.Resuid.String(), Localcnt: s.Localcnt, Remotecnt: s.Remotecnt, Epoch: s.Epoch.Number,
			DirtyBytes: s.DirtyBytes,
			Sync: api.Sync{State: s.SyncState, Direction: s.SyncDirection, BytesDone: s.SyncDone, BytesLeft: s.SyncLeft,
				BytesPerSecond: s.SyncRate, ETASeconds: s.SyncETA},
			IO:     api.IO{Suspended: s.Suspended, Reason: s.SuspendReason},
			Reason: s.Reason, Marks: s.Marks.Names(), Local: local,
		},
		Size: s.Size, SyncSent: s.Counters.SyncSent, Inflight: s.Requests, BuffersFree: s.BuffersFree,
		LogWrites: s.Counters.LogWrites, ErrLocal: s.Counters.ErrLocal, ErrPeer: s.Counters.ErrPeer,
		Repairs: s.Counters.Repairs, Reconnects: s.Counters.Reconnects, SplitBrains: s.Counters.SplitBrains,
		LagBytes: s.LagBytes, LagSeconds: time.Duration(s.LagAge).Seconds(), RoundTrip: s.RoundTrip,
	}
	if s.Quorum {
		m.Resource.Quorum = &api.Quorum{
			Generation: s.Grant.Generation, Owner: s.Grant.Owner, Hold: s.Grant.Hold, Synced: s.Synced, LeaseLeftMS: s.LeaseLeft.Milliseconds(),
		}
	}
	for i, name := range paths {
		m.Paths = append(m.Paths, metrics.Path{Name: name, Up: s.PeerAddress != "" && s.PeerPath == i})
	}
	if p := s.Provider; p != nil {
		m.Provider = &api.Provider{Kind: p.Kind, Path: p.Path, Size: p.Size}
	}
	for i := range metrics.Operations {
		m.IO[i] = metrics.Amount{Count: s.Metrics.Total[i], Bytes: s.Metrics.Bytes[i]}
		for j := range metrics.Stages {
			h := &s.Metrics.Seconds[i][j]
			m.Latency[i][j] = metrics.Histogram{Bounds: runner.Buckets[:], Counts: h.Counts[:len(runner.Buckets)], Count: h.Count, Sum: h.Sum}
		}
	}
	return m
}

func known(s string) string {
	if s == "" {
		return api.Unknown
	}
	return s
}

// startTimeout bounds how long a resource may take to become secondary at start.
const startTimeout = time.Minute

// startAs orders the role that is configured for the start of the daemon, and returns what
// waits for it. It comes before anything that others can order.
func (u *unit) startAs() (wait func(context.Context, *slog.Logger)) {
	if u.run == nil || u.conf.Load().StartAs != conf.StartSecondary {
		return func(context.Context, *slog.Logger) {}
	}
	done := u.run.Order(replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	return func(ctx context.Context, log *slog.Logger) {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		if err := done(ctx); err != nil && !errors.Is(err, context.Canceled) {
			log.Error("resource did not become secondary", "resource", u.name, "reason", err)
		}
	}
}

func (d *server) runDir() string { return filepath.Dir(d.hastd.Control) }
