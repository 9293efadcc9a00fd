package transport

import (
	"testing"
)

type benchToken struct{}

func (k *benchToken) Released() {}

// BenchmarkFrames sends b.N frames of 4 KiB from each side at once, 32 in flight
// each, acknowledged by frames without a body.
func BenchmarkFrames(b *testing.B) {
	for _, c := range []struct{ name, sum, pack string }{
		{"plain", "none", "none"}, {"crc32c+hole", "crc32c", "hole"}, {"xxh3", "xxh3", "none"},
	} {
		b.Run(c.name, func(b *testing.B) {
			x, y := options("alpha"), options("bravo")
			x.Checksum, x.Compression, y.Checksum, y.Compression = c.sum, c.pack, c.sum, c.pack
			p := newPair(b, x, y)
			sx, sy := p.connect()
			const depth = 32
			body := [][]byte{noise(1, 4096)}
			token := &benchToken{}
			var ends []*end
			var finished [2]chan struct{}
			for i, s := range []*Session{sx, sy} {
				credit, done := 0, 0
				var acks int
				fin := make(chan struct{})
				finished[i] = fin
				mem := make([]byte, 4096)
				out := make([]Out, 0, 2*depth)
				left := b.N - min(depth, b.N)
				h := &batchSink{mem: mem}
				h.frame = func(f *Frame) {
					if f.Kind == 1 {
						acks++
					} else {
						credit++
					}
				}
				h.batch = func() {
					out = out[:0]
					for ; acks > 0; acks-- {
						out = append(out, Out{Frame: Frame{Kind: 2}})
					}
					for ; credit > 0; credit-- {
						done++
						if left > 0 {
							left--
							out = append(out, Out{Frame: Frame{Kind: 1}, Body: body, Done: token})
						}
					}
					s.Send(out)
					if done == b.N {
						done++
						close(fin)
					}
				}
				e := &end{s: s, done: make(chan error, 1)}
				go func() { e.done <- s.Serve(h) }()
				ends = append(ends, e)
			}
			b.ReportAllocs()
			b.SetBytes(2 * 4096)
			b.ResetTimer()
			for _, s := range []*Session{sx, sy} {
				var out []Out
				for range min(depth, b.N) {
					out = append(out, Out{Frame: Frame{Kind: 1}, Body: body, Done: token})
				}
				s.Send(out)
			}
			<-finished[0]
			<-finished[1]
			b.StopTimer()
			sx.Close("bench")
			ends[0].wait(b)
			ends[1].wait(b)
			b.ReportMetric(float64(x.Metrics.FramesSent.Load())/float64(max(1, x.Metrics.Writes.Load())), "frames/write")
		})
	}
}

type batchSink struct {
	mem   []byte
	frame func(*Frame)
	batch func()
}

func (h *batchSink) Body(f *Frame, n int) []byte { return h.mem[:n] }
func (h *batchSink) Frame(f *Frame, body []byte) { h.frame(f) }
func (h *batchSink) Batch()                      { h.batch() }
