package ledger

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"hastd/test/lab/disk"
)

// device is memory that does as the test says.
type device struct{ b []byte }

func (d *device) ReadAt(p []byte, off int64) (int, error) { return copy(p, d.b[off:]), nil }

// bench is a ledger with a device, and verbs.
type bench struct {
	*testing.T
	l   *Ledger
	dev *device
}

func newBench(t *testing.T) *bench {
	return &bench{t, New(Options{Size: 64 << 10, Seed: 42}), &device{make([]byte, 64<<10)}}
}

// content is what write id puts at off.
func (b *bench) content(id ID, off, n int64) []byte {
	p := make([]byte, n)
	b.l.Fill(p, off, id)
	return p
}

func (b *bench) put(id ID, off, n int64) { copy(b.dev.b[off:], b.content(id, off, n)) }

// acked is a write that is acknowledged and reaches the device.
func (b *bench) acked(off, n int64) ID {
	id := b.l.Begin(Data, off, n, false)
	b.put(id, off, n)
	b.l.Acked(id)
	return id
}

func (b *bench) flush() { b.l.FlushAcked(b.l.BeginFlush()) }

func (b *bench) want(v Verdict) {
	b.Helper()
	r, err := b.l.Check(b.dev, false)
	if err != nil {
		b.Fatal(err)
	}
	if v == Fine {
		if err := r.Err(); err != nil {
			b.Fatalf("a permitted history was refused: %v", err)
		}
		return
	}
	if r.Bad == 0 {
		b.Fatalf("a history that is %v was not caught", v)
	}
	if got := r.Listed[0].Verdict; got != v {
		b.Fatalf("caught as %v, want %v: %v", got, v, r.Err())
	}
	if msg := r.Err().Error(); !strings.Contains(msg, v.String()) {
		b.Fatalf("the report does not say %v: %s", v, msg)
	}
}

// Each history ends in a device content and a verdict.
func TestHistories(t *testing.T) {
	const K = 4096
	for _, h := range []struct {
		name string
		do   func(b *bench)
		want Verdict
	}{
		{"nothing written", func(b *bench) {}, Fine},
		{"acknowledged and there", func(b *bench) { b.acked(0, K); b.acked(K, K) }, Fine},
		{"acknowledged and missing", func(b *bench) {
			b.acked(0, K)
			clear(b.dev.b)
		}, Lost},
		{"acknowledged, one sector missing", func(b *bench) {
			b.acked(0, K)
			clear(b.dev.b[512:1024])
		}, Lost},
		{"acknowledged, unflushed, power lost", func(b *bench) {
			b.acked(0, K)
			b.l.PowerLost()
			clear(b.dev.b)
		}, Fine},
		{"acknowledged, flushed, power lost", func(b *bench) {
			b.acked(0, K)
			b.flush()
			b.l.PowerLost()
			clear(b.dev.b)
		}, Lost},
		{"flush issued before the acknowledgement covers nothing", func(b *bench) {
			f := b.l.BeginFlush()
			b.acked(0, K)
			b.l.FlushAcked(f)
			b.l.PowerLost()
			clear(b.dev.b)
		}, Fine},
		{"a flush never acknowledged covers nothing", func(b *bench) {
			b.acked(0, K)
			b.l.BeginFlush()
			b.l.PowerLost()
			clear(b.dev.b)
		}, Fine},
		{"a flush after the power loss does not bring back", func(b *bench) {
			b.acked(0, K)
			b.l.PowerLost()
			clear(b.dev.b)
			b.flush()
		}, Fine},
		{"a flush issued before the loss and acknowledged after it counts", func(b *bench) {
			b.acked(0, K)
			f := b.l.BeginFlush()
			b.l.PowerLost()
			b.l.FlushAcked(f)
			clear(b.dev.b)
		}, Lost},
		{"FUA, power lost", func(b *bench) {
			id := b.l.Begin(Data, 0, K, true)
			b.l.Acked(id)
			b.l.PowerLost()
		}, Lost},
		{"acknowledged after the power loss", func(b *bench) {
			b.l.PowerLost()
			b.acked(0, K)
			clear(b.dev.b)
		}, Lost},
		{"older version", func(b *bench) {
			old := b.acked(0, K)
			b.acked(0, K)
			b.put(old, 0, K)
		}, Stale},
		{"older version in one sector", func(b *bench) {
			old := b.acked(0, K)
			b.acked(0, K)
			b.put(old, 1024, 512)
		}, Stale},
		{"older version, newer one unflushed, power lost", func(b *bench) {
			old := b.acked(0, K)
			b.flush()
			b.acked(0, K)
			b.l.PowerLost()
			b.put(old, 512, 512) // torn between sectors
		}, Fine},
		{"older than the flushed one, power lost", func(b *bench) {
			old := b.acked(0, K)
			b.acked(0, K)
			b.flush()
			b.acked(0, K)
			b.l.PowerLost()
			b.put(old, 0, K)
		}, Stale},
		{"concurrent writes end in either order", func(b *bench) {
			one := b.l.Begin(Data, 0, K, false)
			two := b.l.Begin(Data, 0, K, false)
			b.l.Acked(two)
			b.l.Acked(one)
			b.put(one, 0, K)
			b.put(two, 512, 512)
		}, Fine},
		{"unanswered write there", func(b *bench) {
			b.acked(0, K)
			id := b.l.Begin(Data, 0, K, false)
			b.l.Unanswered(id)
			b.put(id, 0, K)
		}, Fine},
		{"unanswered write not there", func(b *bench) {
			b.acked(0, K)
			b.l.Unanswered(b.l.Begin(Data, 0, K, false))
		}, Fine},
		{"failed write in part", func(b *bench) {
			b.acked(0, K)
			id := b.l.Begin(Data, 0, K, false)
			b.l.Failed(id)
			b.put(id, 0, 1024)
		}, Fine},
		{"unanswered write comes late, nobody said it was over", func(b *bench) {
			id := b.l.Begin(Data, 0, K, false)
			b.l.Unanswered(id)
			b.acked(0, K)
			b.put(id, 0, K)
		}, Fine},
		{"unanswered write comes back after it was over", func(b *bench) {
			id := b.l.Begin(Data, 0, K, false)
			b.l.Unanswered(id)
			b.l.Settle()
			b.acked(0, K)
			b.put(id, 0, K)
		}, Revived},
		{"failed write comes back", func(b *bench) {
			id := b.l.Begin(Data, 0, K, false)
			b.l.Failed(id)
			b.acked(0, K)
			b.put(id, 0, K)
		}, Revived},
		{"torn inside a sector", func(b *bench) {
			old := b.acked(0, K)
			b.acked(0, K)
			copy(b.dev.b[300:512], b.content(old, 0, K)[300:512])
		}, Torn},
		{"bit flipped", func(b *bench) {
			b.acked(0, K)
			b.dev.b[2000] ^= 4
		}, Torn},
		{"somebody else's data", func(b *bench) {
			b.acked(0, K)
			copy(b.dev.b[512:1024], bytes.Repeat([]byte("foreign!"), 64))
		}, Foreign},
		{"data in a sector never written", func(b *bench) {
			copy(b.dev.b[512:1024], bytes.Repeat([]byte("foreign!"), 64))
		}, Foreign},
		{"another ledger's data", func(b *bench) {
			o := New(Options{Size: 64 << 10, Seed: 43})
			id := o.Begin(Data, 0, K, false)
			o.Fill(b.dev.b[:K], 0, id)
			b.l.Acked(b.l.Begin(Data, 0, K, false))
		}, Foreign},
		{"right data in the wrong place", func(b *bench) {
			id := b.acked(0, K)
			b.l.Begin(Data, 8*K, K, false)
			copy(b.dev.b[8*K:], b.content(id, 0, K))
		}, Foreign},
		{"a write that was never issued", func(b *bench) { b.put(77, 0, K) }, Foreign},
		{"a write beyond its range", func(b *bench) {
			id := b.acked(0, K)
			b.put(id, K, 512)
		}, Foreign},
		{"trimmed and zero", func(b *bench) {
			b.acked(0, K)
			b.l.Acked(b.l.Begin(Zeroes, 0, K, false))
			clear(b.dev.b)
		}, Fine},
		{"trimmed and still there", func(b *bench) {
			b.acked(0, K)
			b.l.Acked(b.l.Begin(Zeroes, 0, K, false))
		}, Stale},
		{"trimmed, written, zero again", func(b *bench) {
			b.l.Acked(b.l.Begin(Zeroes, 0, K, false))
			b.acked(0, K)
			clear(b.dev.b)
		}, Lost},
	} {
		t.Run(h.name, func(t *testing.T) {
			b := newBench(t)
			h.do(b)
			b.want(h.want)
		})
	}
}

func TestPinnedContentStays(t *testing.T) {
	b := newBench(t)
	old := b.acked(0, 4096)
	id := b.l.Begin(Data, 0, 4096, false)
	b.l.Unanswered(id)
	b.l.Settle()
	b.put(id, 0, 4096)
	if r, err := b.l.Check(b.dev, true); err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	b.want(Fine)
	b.put(old, 0, 4096)
	b.want(Stale)
}

// Many overwrites of few sectors: old versions are forgotten, and still caught.
func TestPruningForgetsNothingThatMatters(t *testing.T) {
	b := newBench(t)
	first := b.acked(0, 512)
	for range 1000 {
		b.acked(0, 512)
		b.flush()
	}
	if n := len(b.l.sectors[0]); n > pruneAt+1 {
		t.Fatalf("%d versions of a sector are kept", n)
	}
	b.want(Fine)
	b.put(first, 0, 512)
	b.want(Stale)
}

// walkDisk writes at random to a disk with power losses; lie makes its flushes
// empty promises.
func walkDisk(t *testing.T, seed uint64, lie bool) *Report {
	d, err := disk.New(disk.Options{Size: 256 << 10, Seed: seed, KeepRandom: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l := New(Options{Size: d.Size(), Seed: seed})
	rng := rand.New(rand.NewPCG(seed, 9))
	for range 1200 {
		off := rng.Int64N(d.Size()/512-16) * 512
		n := (1 + rng.Int64N(16)) * 512
		switch k := rng.IntN(100); {
		case k < 80:
			id := l.Begin(Data, off, n, false)
			p := make([]byte, n)
			l.Fill(p, off, id)
			if _, err := d.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			l.Acked(id)
		case k < 88:
			id := l.Begin(Zeroes, off, n, false)
			if err := d.Zero(off, n); err != nil {
				t.Fatal(err)
			}
			l.Acked(id)
		case k < 97:
			f := l.BeginFlush()
			if !lie {
				if err := d.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			l.FlushAcked(f)
		default:
			d.PowerLoss()
			d.PowerUp()
			l.PowerLost()
			r, err := l.Check(d, false)
			if err != nil {
				t.Fatal(err)
			}
			if r.Bad > 0 {
				return r
			}
		}
	}
	return &Report{}
}

func TestRealPowerLossesAreJudgedFair(t *testing.T) {
	for seed := range uint64(6) {
		if err := walkDisk(t, seed, false).Err(); err != nil {
			t.Fatalf("seed %d: an honest disk was condemned: %v", seed, err)
		}
	}
}

func TestLyingFlushIsCaught(t *testing.T) {
	for seed := range uint64(6) {
		if walkDisk(t, seed, true).Bad == 0 {
			t.Errorf("seed %d: a disk that ignores flushes was believed", seed)
		}
	}
}
