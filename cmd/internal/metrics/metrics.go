// Package metrics turns the state of resources into Prometheus metrics. hastd
// registers one Collector; it asks for the samples at each scrape, so nothing is
// counted twice and nothing grows stale.
//
// It keeps no state of its own. State metrics are 0 or 1 for every value of their
// label, so that an alert can tell "not in this state" from "not there".
package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
)

// Operations of applications, in the order of Sample.IO.
var Operations = [...]string{"read", "write", "flush", "trim", "zero"}

// Stages of an operation, in the order of Sample.Latency.
var Stages = [...]string{"local", "peer", "total"}

// errorOps are the operations whose errors are counted, in the order of
// replicate.Counters.
var errorOps = [...]string{"read", "write", "flush"}

// Sample is one resource at the moment of a scrape.
type Sample struct {
	api.Resource
	Size        int64 // bytes of the device; 0: not agreed yet
	SyncSent    uint64
	IO          [len(Operations)]Amount
	Latency     [len(Operations)][len(Stages)]Histogram
	Inflight    int
	BuffersFree int64
	LogWrites   uint64
	ErrLocal    [3]uint64
	ErrPeer     [3]uint64
	Repairs     uint64
	Reconnects  uint64
	SplitBrains uint64
	LagBytes    int64
	LagSeconds  float64
	Paths       []Path
	RoundTrip   time.Duration // 0: not measured
}

// Amount counts operations and their bytes.
type Amount struct{ Count, Bytes uint64 }

// Histogram is a distribution of durations: Counts[i] of them took at most
// Bounds[i] seconds and more than the bound before. Those above all bounds are
// only in Count.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Count  uint64
	Sum    float64 // seconds
}

// Path is one pair of addresses between the nodes.
type Path struct {
	Name string
	Up   bool
}

// Source gives the samples of all resources.
type Source interface {
	Samples(ctx context.Context) []Sample
}

// scrapeTimeout bounds how long a scrape waits for the resources.
const scrapeTimeout = 5 * time.Second

// Collector is a prometheus.Collector over a Source.
type Collector struct{ source Source }

// NewCollector makes one.
func NewCollector(s Source) *Collector { return &Collector{s} }

// The words of the status contract, in the order of the contract.
var (
	roles       = []string{"init", "primary", "secondary"}
	statuses    = []string{"init", "complete", "degraded", "syncing", "split-brain", "failed"}
	connections = []string{"standalone", "connecting", "connected", "split-brain", "refused"}
	disks       = []string{"diskless", "failed", "inconsistent", "outdated", "uptodate", "unknown"}
	reasons     = []string{"peer-lost", "peer-primary", "no-lease", "reconfiguration", "both-failed", "operator"}
)

var all []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("hast_"+name, help, labels, nil)
	all = append(all, d)
	return d
}

var (
	buildInfo   = desc("build_info", "The running build of hastd; always 1.", "version", "revision", "goversion")
	role        = desc("resource_role", "Whether the resource has this role on this node.", "resource", "role")
	status      = desc("resource_status", "Whether the resource is in this overall state; complete means connected with both disks up to date.", "resource", "status")
	connection  = desc("resource_connection", "Whether the connection to the peer is in this state.", "resource", "state")
	disk        = desc("resource_disk", "Whether the replica of this side (local or peer) is in this state, as far as it is known.", "resource", "side", "state")
	suspended   = desc("resource_suspended", "Whether application requests are held back for this reason.", "resource", "reason")
	localcnt    = desc("resource_localcnt", "Local counter of the replica: raised when it acknowledges what the peer does not have.", "resource")
	remotecnt   = desc("resource_remotecnt", "Remote counter of the replica: the peer's local counter as of the last completed synchronisation.", "resource")
	epoch       = desc("resource_epoch", "Epoch of the resource: raised by every promotion and every established connection.", "resource")
	size        = desc("resource_size_bytes", "Size of the replicated device.", "resource")
	outOfSync   = desc("resource_out_of_sync_bytes", "Bytes that may differ between the two replicas.", "resource")
	syncLeft    = desc("resource_sync_bytes_left", "Bytes that the running synchronisation has still to look at.", "resource")
	syncSent    = desc("resource_sync_sent_bytes_total", "Bytes of blocks that synchronisation sent or fetched.", "resource")
	ioTotal     = desc("resource_io_total", "Completed application requests.", "resource", "op")
	ioBytes     = desc("resource_io_bytes_total", "Bytes of completed application requests.", "resource", "op")
	ioSeconds   = desc("resource_io_seconds", "Duration of application requests: at the local disk, at the peer, and in total.", "resource", "op", "stage")
	inflight    = desc("resource_inflight", "Application requests under way.", "resource")
	buffersFree = desc("resource_buffers_free", "Bytes of request buffers that are free; at 0 the front end is not read from.", "resource")
	logWrites   = desc("resource_activity_log_writes_total", "Writes of the activity log.", "resource")
	ioErrors    = desc("resource_io_errors_total", "Errors of the component of this side (local or peer).", "resource", "side", "op")
	repairs     = desc("resource_repairs_total", "Blocks that could not be read and were mended from the peer.", "resource")
	reconnects  = desc("resource_reconnects_total", "Connections to the peer established again after a loss.", "resource")
	splitBrains = desc("resource_split_brains_total", "Split-brains detected.", "resource")
	lagBytes    = desc("resource_async_lag_bytes", "Bytes acknowledged to the application and not yet confirmed by the peer (async).", "resource")
	lagSeconds  = desc("resource_async_lag_seconds", "Age of the oldest write acknowledged and not yet confirmed by the peer (async).", "resource")
	pathUp      = desc("path_up", "Whether this path to the peer carries the connection.", "resource", "path")
	roundTrip   = desc("peer_round_trip_seconds", "Time from a keepalive to its answer, measured last.", "resource")
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	b := build.Read()
	ch <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, b.Version, b.Revision, b.Go)
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	for _, s := range c.source.Samples(ctx) {
		collect(ch, &s)
	}
}

func collect(ch chan<- prometheus.Metric, s *Sample) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.Name}, labels...)...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{s.Name}, labels...)...)
	}
	state := func(d *prometheus.Desc, words []string, is string, labels ...string) {
		for _, w := range words {
			gauge(d, truth(w == is), append(slices.Clone(labels), w)...)
		}
	}
	state(role, roles, s.Role)
	state(status, statuses, s.Status)
	state(connection, connections, s.Connection)
	state(disk, disks, s.Disk, "local")
	state(disk, disks, s.Peer.Disk, "peer")
	reason := ""
	if s.Resource.IO.Suspended {
		reason = s.Resource.IO.Reason
	}
	state(suspended, reasons, reason)
	gauge(localcnt, float64(s.Localcnt))
	gauge(remotecnt, float64(s.Remotecnt))
	gauge(epoch, float64(s.Epoch))
	gauge(size, float64(s.Size))
	gauge(outOfSync, float64(s.DirtyBytes))
	gauge(syncLeft, float64(s.Sync.BytesLeft))
	counter(syncSent, s.SyncSent)
	for i, op := range Operations {
		counter(ioTotal, s.IO[i].Count, op)
		counter(ioBytes, s.IO[i].Bytes, op)
		for j, stage := range Stages {
			histogram(ch, &s.Latency[i][j], s.Name, op, stage)
		}
	}
	gauge(inflight, float64(s.Inflight))
	gauge(buffersFree, float64(s.BuffersFree))
	counter(logWrites, s.LogWrites)
	for i, op := range errorOps {
		counter(ioErrors, s.ErrLocal[i], "local", op)
		counter(ioErrors, s.ErrPeer[i], "peer", op)
	}
	counter(repairs, s.Repairs)
	counter(reconnects, s.Reconnects)
	counter(splitBrains, s.SplitBrains)
	gauge(lagBytes, float64(s.LagBytes))
	gauge(lagSeconds, s.LagSeconds)
	for _, p := range s.Paths {
		gauge(pathUp, truth(p.Up), p.Name)
	}
	if s.RoundTrip > 0 {
		gauge(roundTrip, s.RoundTrip.Seconds())
	}
}

// histogram leaves out what never happened: a resource has dozens of them.
func histogram(ch chan<- prometheus.Metric, h *Histogram, labels ...string) {
	if h.Count == 0 {
		return
	}
	buckets := make(map[float64]uint64, len(h.Bounds))
	var sum uint64
	for i, b := range h.Bounds {
		sum += h.Counts[i]
		buckets[b] = sum
	}
	// The parts were read one by one while requests went on.
	ch <- prometheus.MustNewConstHistogram(ioSeconds, max(h.Count, sum), h.Sum, buckets, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
