package replicate

import (
	"testing"

	"hastd/metadata"
)

// What one write costs in the machine: a batch of writes to extents that are in
// the log, from the request to the reply.

const benchBatch = 32

func BenchmarkStepPrimary(b *testing.B) {
	s := newScript(b, scriptSuper())
	s.primary()
	s.silently(func() {
		for i := range benchBatch {
			s.write(ReqID(i+1), int64(i)*block, block)
		}
		s.settle()
	})
	m, now := s.m, s.now
	requests, ends := make([]Event, benchBatch), make([]Event, benchBatch)
	wrote := []Event{{Kind: EvMessage, Session: s.session, Msg: Msg{Kind: MsgWrote, Conn: m.conn, Seqs: make([]uint64, benchBatch)}}}
	for i := range requests {
		requests[i] = Event{Kind: EvRequest, Request: ReqWrite, Req: ReqID(i + 1), Off: int64(i) * block, Len: block, Buf: Handle(i + 1)}
	}
	var out []Effect
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		now += Millisecond
		out = m.Step(now, requests, out[:0])
		i, j := 0, 0
		for k := range out {
			switch e := &out[k]; e.Kind {
			case EffDisk:
				ends[i] = Event{Kind: EvDone, Op: e.Op}
				i++
			case EffSend:
				wrote[0].Msg.Seqs[j] = e.Msg.Seq
				j++
			}
		}
		if i != benchBatch || j != benchBatch {
			b.Fatalf("%d of %d begun, %d sent", i, benchBatch, j)
		}
		out = m.Step(now, ends, out[:0])
		out = m.Step(now, wrote, out[:0])
		if len(out) != benchBatch || out[0].Kind != EffReply {
			b.Fatalf("%d effects instead of %d replies", len(out), benchBatch)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/write")
}

// BenchmarkStepPrimaryDeep has 1024 writes under way all the time.
func BenchmarkStepPrimaryDeep(b *testing.B) {
	const depth = 1024
	s := newScript(b, scriptSuper())
	s.primary()
	s.silently(func() {
		for i := range 16 {
			s.write(ReqID(i+1), int64(i)<<20, block)
		}
		s.settle()
	})
	m, now := s.m, s.now
	var out []Effect
	type flight struct {
		op  OpID
		seq uint64
	}
	var under []flight
	next := int64(0)
	requests, ends := make([]Event, benchBatch), make([]Event, benchBatch)
	seqs := make([]uint64, benchBatch)
	begin := func() {
		for i := range requests {
			requests[i] = Event{Kind: EvRequest, Request: ReqWrite, Req: ReqID(next + 1), Off: next * block, Len: block, Buf: Handle(next + 1)}
			next = (next + 1) % (2 * depth)
		}
		out = m.Step(now, requests, out[:0])
		var f flight
		for k := range out {
			switch e := &out[k]; e.Kind {
			case EffDisk:
				f.op = e.Op
			case EffSend:
				f.seq = e.Msg.Seq
				under = append(under, f)
			}
		}
	}
	for len(under) < depth {
		begin()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		now += Millisecond
		for i, f := range under[:benchBatch] {
			ends[i] = Event{Kind: EvDone, Op: f.op}
			seqs[i] = f.seq
		}
		under = append(under[:0], under[benchBatch:]...)
		out = m.Step(now, ends, out[:0])
		out = m.Step(now, []Event{{Kind: EvMessage, Session: s.session, Msg: Msg{Kind: MsgWrote, Conn: m.conn, Seqs: seqs}}}, out[:0])
		if len(out) != benchBatch {
			b.Fatalf("%d effects instead of %d replies", len(out), benchBatch)
		}
		begin()
		if len(under) != depth {
			b.Fatalf("%d under way", len(under))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/write")
}

func BenchmarkStepSecondary(b *testing.B) {
	s := newScript(b, scriptSuper())
	s.peer.Role = metadata.Primary
	s.secondary(true)
	s.silently(func() {
		s.says(Msg{Kind: MsgWrite, Seq: 1, Off: 0, Len: block, Buf: 1})
		s.settle()
	})
	m, now, seq := s.m, s.now, uint64(1)
	writes, ends := make([]Event, benchBatch), make([]Event, benchBatch)
	var out []Effect
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		now += Millisecond
		for i := range writes {
			seq++
			writes[i] = Event{Kind: EvMessage, Session: s.session, Msg: Msg{Kind: MsgWrite, Conn: m.conn, Seq: seq, Off: int64(i) * block, Len: block, Buf: Handle(i + 1)}}
		}
		out = m.Step(now, writes, out[:0])
		i := 0
		for k := range out {
			if out[k].Kind == EffDisk {
				ends[i] = Event{Kind: EvDone, Op: out[k].Op}
				i++
			}
		}
		if i != benchBatch {
			b.Fatalf("%d of %d begun", i, benchBatch)
		}
		out = m.Step(now, ends, out[:0])
		if n := len(out); n != benchBatch+1 || len(out[n-1].Msg.Seqs) != benchBatch {
			b.Fatalf("%d effects", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/write")
}
