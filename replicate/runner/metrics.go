package runner

import (
	"slices"
	"time"

	"hastd/blockdev"
	"hastd/replicate"
)

// Ops and stages of the metrics, in the order of their arrays.
var (
	Ops    = [...]string{"read", "write", "flush", "trim", "zero"}
	Stages = [...]string{"local", "peer", "total"}
)

const (
	opRead = iota
	opWrite
	opFlush
	opTrim
	opZero
	numOps

	stageLocal = iota - numOps - 1
	stagePeer
	stageTotal
	numStages
)

// Buckets are the upper bounds of a Histogram's counts, in seconds; one more count
// is beyond the last.
var Buckets = [...]float64{
	20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1, 5,
}

// Histogram counts durations.
type Histogram struct {
	Counts [len(Buckets) + 1]uint64 // not cumulative
	Count  uint64
	Sum    float64 // seconds
}

var bucketNanos = func() (n [len(Buckets)]int64) {
	for i, b := range Buckets {
		n[i] = int64(b * 1e9)
	}
	return n
}()

func (h *Histogram) add(ns int64) {
	i, _ := slices.BinarySearch(bucketNanos[:], ns)
	h.Counts[i]++
	h.Count++
	h.Sum += float64(ns) / float64(time.Second)
}

// Metrics is what a resource counted since it was made, by op and stage.
type Metrics struct {
	Total   [numOps]uint64
	Bytes   [numOps]uint64
	Seconds [numOps][numStages]Histogram
}

// peerSamples is how many questions to the peer are timed at once.
const peerSamples = 4096

// metrics is the owner's.
type metrics struct {
	Metrics
	asks [peerSamples]struct {
		seq uint64
		at  replicate.Instant
		op  uint8
	}
}

// request counts an application request that ended.
func (m *metrics) request(q *blockdev.Request, took replicate.Instant) {
	op := opZero
	switch q.Op {
	case blockdev.OpRead:
		op = opRead
	case blockdev.OpWrite:
		op = opWrite
	case blockdev.OpFlush:
		op = opFlush
	case blockdev.OpTrim:
		op = opTrim
	}
	m.Total[op]++
	if q.Err == nil {
		m.Bytes[op] += uint64(q.Len)
	}
	m.Seconds[op][stageTotal].add(int64(took))
}

// local counts an operation of the component.
func (m *metrics) local(op *diskOp) {
	if op.io.Took <= 0 {
		return
	}
	k := opZero
	switch op.kind {
	case replicate.DiskRead:
		k = opRead
	case replicate.DiskWrite:
		k = opWrite
	case replicate.DiskFlush:
		k = opFlush
	case replicate.DiskZero:
	default:
		return // sync is not the application's
	}
	m.Seconds[k][stageLocal].add(op.io.Took)
}

// asked notes when the peer was asked for something of the application's.
func (m *metrics) asked(msg *replicate.Msg, at replicate.Instant) {
	op := uint8(opZero)
	switch msg.Kind {
	case replicate.MsgWrite:
		op = opWrite
	case replicate.MsgFlush:
		op = opFlush
	case replicate.MsgRead:
		op = opRead
	}
	a := &m.asks[msg.Seq%peerSamples]
	a.seq, a.at, a.op = msg.Seq, at, op
}

func (m *metrics) answered(seq uint64, at replicate.Instant) {
	a := &m.asks[seq%peerSamples]
	if a.seq == seq && a.at != 0 {
		m.Seconds[a.op][stagePeer].add(int64(at - a.at))
		a.at = 0
	}
}
