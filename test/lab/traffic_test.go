package lab

import (
	"crypto/rand"
	mrand "math/rand/v2"
	"testing"

	"hastd/test/lab/nbdclient"
)

// TestSyncTraffic: after a disconnection in which 1,000 random blocks changed on
// a device of 256 MiB, the sync sends little more than those blocks and reads
// little of the disks.
func TestSyncTraffic(t *testing.T) {
	t.Parallel()
	const (
		deviceSize = 256 << 20
		blocks     = 1000
		changed    = blocks * BlockSize
	)
	p := newPair(t, Options{Size: deviceSize + 64<<20, Seed: *seedFlag})
	p.ok(p.CreateAndStart("--assume-clean")) // of two files without a byte: a comparison would say nothing
	p.ok(p.AwaitConnected(waitLimit))
	p.promote(p.a)
	p.ok(p.AwaitComplete(waitLimit))
	c := p.open(p.a)
	if c.Size < deviceSize {
		t.Fatalf("the device has %d bytes, want 256 MiB", c.Size)
	}
	where := mrand.New(mrand.NewPCG(*seedFlag, 1)).Perm(deviceSize / BlockSize)[:blocks]
	write := func() {
		done := make(chan *nbdclient.Call, blocks)
		for _, block := range where {
			b := make([]byte, BlockSize)
			rand.Read(b)
			c.Go(&nbdclient.Call{Cmd: nbdclient.Write, Off: uint64(block) * BlockSize, Data: b, Done: done})
		}
		for range blocks {
			p.ok((<-done).Err)
		}
		p.ok(c.Flush())
	}
	write() // what will change is data on both sides: no holes that are known to differ
	p.cut()
	write()
	s, err := p.a.Status()
	p.ok(err)
	if s.DirtyBytes < changed {
		t.Fatalf("%d bytes are told to differ, at least %d do", s.DirtyBytes, changed)
	}
	var before [2]int64
	for _, n := range p.Nodes {
		p.ok(n.Disk.ResetStats())
		before[n.Side], err = p.Network().Sent(n.Side)
		p.ok(err)
	}
	p.heal()
	for _, n := range p.Nodes {
		p.ok(n.WaitStatus("complete", waitLimit))
	}
	var sent int64
	for _, n := range p.Nodes {
		now, err := p.Network().Sent(n.Side)
		p.ok(err)
		st, err := n.Disk.Stats()
		p.ok(err)
		t.Logf("%v sent %d bytes; its disk read %d and wrote %d bytes", n.Side, now-before[n.Side], st.ReadBytes, st.WrittenBytes)
		sent += now - before[n.Side]
		if st.ReadBytes > deviceSize/10 {
			t.Errorf("%v read %d bytes, more than a tenth of the device", n.Side, st.ReadBytes)
		}
	}
	ratio := float64(sent) / changed
	t.Logf("both ways: %d bytes, %.3f times what changed", sent, ratio)
	if ratio >= 1.2 {
		t.Errorf("the sync sent %.3f times what changed, want less than 1.2", ratio)
	}
	p.same()
}
