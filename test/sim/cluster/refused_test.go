package cluster

import (
	"math/rand/v2"
	"testing"

	"hastd/cluster/view"
	"hastd/metadata"
	"hastd/replicate"
	"hastd/test/sim"
)

// What replicas refuse by views, without anybody's clock: the lease of the owner here
// never ends, so that nothing but generations and incarnations keeps what it holds from
// being acknowledged. (In whole runs the lease mostly saves it first.)

const (
	incA, incB = 0xa, 0xb
	forever    = replicate.Instant(1) << 60
)

type desk struct {
	*sim.Pair
	now  int64
	told [2]int
}

// linked is a pair whose node 0 owns, serves and has its peer in sync by generation 1.
func linked(t *testing.T, seed uint64) *desk {
	d := &desk{now: int64(second)}
	p := sim.QuorumProfile(rand.New(rand.NewPCG(seed, 1)))
	p.Mode = replicate.Fullsync
	d.Pair = sim.NewPair(sim.PairOptions{
		Seed: seed, Profile: p,
		Told:   func(node int, _ bool) { d.told[node]++ },
		Shows:  func(int, int) {},
		Forced: func(int) {},
		Judged: func(int) bool { return true },
		Pause:  func(int) int64 { return 0 },
	})
	d.Boot(0)
	d.Boot(1)
	d.run(second)
	d.grant(0, replicate.Grant{Generation: 1, Incarnation: incA, Peer: incB, Owner: true, Hold: true, Until: forever})
	d.grant(1, replicate.Grant{Generation: 1, Incarnation: incB, Peer: incA, PeerOwner: true})
	d.Order(0, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary}, func(*replicate.Refusal) {})
	d.run(5 * second)
	if d.told[0] == 0 || d.Status(1).Connection != "connected" {
		t.Fatalf("seed %d: told %d, %s", seed, d.told[0], d.Status(1).Connection)
	}
	return d
}

func (d *desk) run(time view.Duration) {
	for end := d.now + int64(time); ; {
		at, ok := d.NextAt()
		if !ok || at > end {
			d.now = end
			d.At(end)
			return
		}
		d.Next()
	}
}

func (d *desk) grant(i int, g replicate.Grant) {
	d.Order(i, replicate.Command{Kind: replicate.CmdGrant, Grant: &g}, func(*replicate.Refusal) {})
	d.run(10 * millisecond)
}

func (d *desk) cut(cut bool) {
	d.Cut(0, cut)
	d.Cut(1, cut)
}

func (d *desk) restart(i int) {
	d.Kill(i)
	d.run(100 * millisecond)
	d.Boot(i)
	d.run(100 * millisecond)
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(d *desk)
	}{
		{"an owner of an older generation", func(d *desk) {
			d.cut(true)
			d.run(3 * second)
			d.grant(1, replicate.Grant{Generation: 2, Incarnation: incB, Peer: incA})
			d.cut(false)
		}},
		{"an owner of an older generation, linked", func(d *desk) {
			d.grant(1, replicate.Grant{Generation: 2, Incarnation: incB, Peer: incA})
		}},
		{"another incarnation of the peer", func(d *desk) {
			d.cut(true)
			d.restart(1)
			d.grant(1, replicate.Grant{Generation: 1, Incarnation: incB + 1, Peer: incA, PeerOwner: true})
			d.cut(false)
		}},
		{"another incarnation of the peer, linked", func(d *desk) {
			d.grant(0, replicate.Grant{Generation: 2, Incarnation: incA, Peer: incB + 1, Owner: true, Hold: true, Until: forever})
		}},
		{"a hastd that was not told a generation since it started", func(d *desk) { d.restart(1) }},
		{"a grant of an older generation", func(d *desk) {
			d.grant(0, replicate.Grant{Generation: 2, Incarnation: incA, Peer: incB, PeerOwner: true})
			d.grant(0, replicate.Grant{Generation: 1, Incarnation: incA, Peer: incB, Owner: true, Hold: true, Until: forever})
		}},
		{"a peer that is no member", func(d *desk) {
			d.grant(0, replicate.Grant{Generation: 2, Incarnation: incA, Owner: true, Hold: true, Until: forever})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 3; seed++ {
				d := linked(t, seed)
				c.do(d)
				d.run(2 * second) // what was confirmed before is told
				told := d.told[0]
				if d.run(8 * second); d.told[0] != told {
					t.Errorf("seed %d: the owner told %d times of success since: %+v", seed, d.told[0]-told, d.Status(0))
				}
				// By a view that names them both they go on.
				d.grant(0, replicate.Grant{Generation: 3, Incarnation: incA, Peer: incB, Owner: true, Hold: true, Until: forever})
				d.grant(1, replicate.Grant{Generation: 3, Incarnation: incB, Peer: incA, PeerOwner: true})
				if d.run(8 * second); d.told[0] == told {
					t.Errorf("seed %d: the next view does not help: %+v", seed, d.Status(0))
				}
			}
		})
	}
}
