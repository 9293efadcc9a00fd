package replicate

import (
	"strings"
	"testing"

	"hastd/metadata"
)

const (
	incA, incB = 0xa1, 0xb1
	lease      = 3 * Second
)

// quorate is a machine of a cluster that decides; nothing is granted yet.
func quorate(t *testing.T, change ...func(c *Config)) *script {
	t.Helper()
	s := newScript(t, scriptSuper(), append(change, func(c *Config) { c.NeedLease = true })...)
	s.peer.Generation, s.peer.Incarnation = 1, incB
	return s
}

// grants passes a grant on and says why it was refused, "" if it was not.
func (s *script) grants(g Grant) string {
	s.t.Helper()
	s.order(Command{Kind: CmdGrant, Grant: &g})
	return s.refusal()
}

// refusal is why the order of the last step was refused, "" if none was.
func (s *script) refusal() string {
	for i := range s.out {
		if e := &s.out[i]; e.Kind == EffAnswer && e.Refusal != nil {
			return e.Refusal.Text
		}
	}
	return ""
}

// owner is the grant of an owner with its peer in sync.
func (s *script) owner(generation uint64) Grant {
	return Grant{Generation: generation, Incarnation: incA, Peer: incB, Owner: true, Hold: true, Until: s.now + lease}
}

func (s *script) granted(g Grant) {
	s.t.Helper()
	if why := s.grants(g); why != "" {
		s.t.Fatalf("grant refused: %s", why)
	}
}

// leader is a linked primary by view 1.
func leader(t *testing.T, change ...func(c *Config)) *script {
	t.Helper()
	s := quorate(t, change...)
	s.silently(func() { s.granted(s.owner(1)) })
	s.primary()
	return s
}

func TestPromotionNeedsALease(t *testing.T) {
	s := quorate(t)
	s.secondary(false)
	promoted := func() bool {
		s.role(metadata.Primary)
		if s.m.job != nil {
			s.tick(ProbeTime)
		}
		s.settle()
		return s.m.role == metadata.Primary
	}
	none := Grant{Generation: 1, Incarnation: incA, Peer: incB}
	over := s.owner(2)
	over.Until = s.now
	for _, g := range []Grant{none, over} {
		s.granted(g)
		if promoted() {
			t.Fatalf("promoted by %+v", g)
		}
		if st := s.m.Status(s.now); st.SuspendReason != "no-lease" {
			t.Errorf("status says %q", st.SuspendReason)
		}
	}
	s.granted(s.owner(2))
	if !promoted() {
		t.Error("an owner with a lease is not promoted")
	}
}

// A write that the peer did not acknowledge waits for a view without the peer,
// whatever time passes.
func TestOnlyAViewLetsItGoOnAlone(t *testing.T) {
	s := leader(t)
	s.write(1, 0, 4096)
	for len(s.open) > 0 {
		s.done(s.open[0].label)
	}
	s.loses("connection reset")
	if s.drain(1) || s.m.suspended != "reconfiguration" {
		t.Fatalf("suspended %q", s.m.suspended)
	}
	alone := func(g Grant) Grant { g.Hold, g.Peer = false, 0; return g }
	for range 3 {
		s.tick(2 * Second)
		s.granted(s.owner(1))
		s.granted(alone(s.owner(1))) // the same view cannot say otherwise
		s.order(Command{Kind: CmdResume})
		if s.drain(1) || s.m.marks().Has(metadata.Raised) {
			t.Fatal("acknowledged alone although the view counts the peer")
		}
	}
	if s.m.syncedPeer != incB {
		t.Error("the peer still holds all that was acknowledged")
	}
	s.granted(alone(s.owner(2)))
	if !s.drain(1) || !s.m.marks().Has(metadata.Raised) || s.m.syncedPeer != 0 {
		t.Errorf("view 2 is without the peer: marks %s, synced %x", s.m.marks(), s.m.syncedPeer)
	}
	if why := s.grants(s.owner(1)); !strings.Contains(why, "older") {
		t.Errorf("an older view was taken: %q", why)
	}
}

// Without a lease nothing is answered, although the peer confirmed it: the cluster
// may have another owner.
func TestLeaseRunsOut(t *testing.T) {
	s := leader(t)
	s.tick(lease)
	if s.m.suspended != "no-lease" {
		t.Fatalf("suspended %q at the end of the lease", s.m.suspended)
	}
	s.granted(s.owner(1))
	s.write(1, 0, 4096)
	for len(s.open) > 0 {
		s.done(s.open[0].label)
	}
	s.request(ReqFlush, 2, 0, 0)
	s.tick(lease)
	s.settle()
	s.request(ReqRead, 3, 0, 4096)
	if s.drain(1) || s.drain(2) || s.drain(3) {
		t.Error("answered without a lease")
	}
	s.granted(s.owner(1))
	if !s.answered(1, OK) {
		t.Error("the lease was renewed, and a confirmed write waits")
	}
}

// The peer is counted again only in the incarnation that was copied to, and only
// until something is acknowledged without it.
func TestPeerIsCountedAgain(t *testing.T) {
	s := leader(t)
	adding := func(generation, inc uint64) string {
		g := s.owner(generation)
		g.Adding = inc
		return s.grants(g)
	}
	if why := adding(1, incB); why != "" {
		t.Errorf("in sync, and refused: %s", why)
	}
	if why := adding(1, incB+1); why == "" {
		t.Error("another incarnation is counted")
	}
	s.loses("connection reset")
	g := s.owner(2)
	g.Hold = false
	s.granted(g)
	if why := adding(2, incB); why == "" {
		t.Error("counted although this node goes on alone")
	}
}

func TestWhoMayConnect(t *testing.T) {
	for _, c := range []struct {
		what   string
		mine   func(g *Grant)
		peer   func(f *Facts)
		reason string
	}{
		{"all is well", nil, nil, ""},
		{"nothing known here", func(g *Grant) { *g = Grant{} }, nil, "A does not know"},
		{"nothing known there", nil, func(f *Facts) { f.Generation = 0 }, "B does not know"},
		{"no member", func(g *Grant) { g.Peer = 0 }, nil, "not a member"},
		{"wiped", nil, func(f *Facts) { f.Incarnation++ }, "started anew"},
		{"an older owner", nil, func(f *Facts) { f.Role = metadata.Primary }, "B is primary by an older view"},
	} {
		s := quorate(t)
		s.silently(func() {
			s.role(metadata.Secondary)
			s.settle()
			g := s.owner(2)
			if c.mine != nil {
				c.mine(&g)
			}
			if g.Generation > 0 {
				s.granted(g)
			}
			if c.peer != nil {
				c.peer(&s.peer)
			}
			s.step(Event{Kind: EvSessionUp, Session: s.session, PeerRole: s.peer.Role})
			s.tell()
		})
		if c.reason == "" != (s.m.word != wordRefused) || !strings.Contains(s.m.wordReason, c.reason) {
			t.Errorf("%s: %s: %q", c.what, connWords[s.m.word], s.m.wordReason)
		}
	}
}

// An owner that is one no more parts at once, and what it held was never acknowledged.
func TestOwnershipIsLost(t *testing.T) {
	s := leader(t)
	s.write(1, 0, 4096)
	for len(s.open) > 0 {
		s.done(s.open[0].label)
	}
	s.granted(Grant{Generation: 2, Incarnation: incA, Peer: incB})
	if s.m.phase == linked || s.m.suspended != "no-lease" || s.answered(1, OK) {
		t.Errorf("phase %d, suspended %q", s.m.phase, s.m.suspended)
	}
	s.order(Command{Kind: CmdRole, Role: metadata.Secondary, Force: true})
	s.drain(1)
	if failed := s.answered(1, ErrIO); !failed || s.m.role != metadata.Secondary {
		t.Errorf("stepping down: failed %v, role %s", failed, s.m.role)
	}
}

// A primary that the view does not name as owner gets nothing confirmed any more.
func TestSecondaryKnowsTheOwner(t *testing.T) {
	s := quorate(t)
	s.peer.Role = metadata.Primary
	s.silently(func() {
		s.granted(Grant{Generation: 1, Incarnation: incA, Peer: incB, PeerOwner: true})
		s.role(metadata.Secondary)
		s.settle()
		s.up()
		s.settle()
	})
	if s.m.phase != linked {
		t.Fatalf("phase %d: %s", s.m.phase, s.m.wordReason)
	}
	s.granted(Grant{Generation: 2, Incarnation: incA, Peer: incB, PeerOwner: true})
	if s.m.phase != linked {
		t.Error("a view that leaves the owner as it is parts the pair")
	}
	s.granted(Grant{Generation: 3, Incarnation: incA, Peer: incB})
	if s.m.phase == linked {
		t.Error("linked to a primary that owns nothing")
	}
}

// A peer that the view has anew, or no longer, is parted from at once.
func TestViewPartsFromThePeer(t *testing.T) {
	for _, peer := range []uint64{0, incB + 1} {
		s := leader(t)
		g := s.owner(2)
		g.Peer = peer
		s.granted(g)
		if s.m.phase == linked {
			t.Errorf("linked with %x although the view names %x", incB, peer)
		}
	}
}

// An owner by a committed view need not ask a peer that is gone: its replica counts as in
// sync, however the node was stopped. Without a view it must.
func TestOwnerNeedNotAskThePeer(t *testing.T) {
	for _, quorum := range []bool{true, false} {
		sb := scriptSuper()
		sb.PrevRole = metadata.Secondary // and not stopped in order
		s := newScript(t, sb, func(c *Config) { c.NeedLease = quorum })
		s.secondary(false)
		if quorum {
			alone := s.owner(1)
			alone.Peer, alone.Hold = 0, false
			s.granted(alone)
		}
		s.role(metadata.Primary)
		if s.m.job != nil {
			s.tick(ProbeTime)
		}
		s.settle()
		if is := s.m.role == metadata.Primary; is != quorum {
			t.Errorf("quorum %v: promoted %v", quorum, is)
		}
	}
}

// A view knows nodes, not replicas: one that was created anew is not what it calls good.
func TestOwnerWithANewReplicaAsksThePeer(t *testing.T) {
	for _, force := range []bool{false, true} {
		s := newScript(t, scriptSuper(neu), func(c *Config) { c.NeedLease = true })
		s.secondary(false)
		alone := s.owner(1)
		alone.Peer, alone.Hold = 0, false
		s.granted(alone)
		s.order(Command{Kind: CmdRole, Role: metadata.Primary, Force: force})
		s.tick(ProbeTime)
		s.settle()
		if is := s.m.role == metadata.Primary; is != force {
			t.Errorf("force %v: promoted %v", force, is)
		}
	}
}

// What a view gave may be taken while a promotion waits, or writes its superblock: the
// node does not become primary of what another one owns.
func TestPromotionEndsWithTheGrant(t *testing.T) {
	for _, when := range []string{"while it waits", "while it is made durable"} {
		s := quorate(t)
		s.secondary(false)
		s.granted(s.owner(2))
		s.role(metadata.Primary)
		if when != "while it waits" {
			s.tick(ProbeTime) // the superblock is on its way
		}
		if s.m.job == nil || s.m.role == metadata.Primary {
			t.Fatalf("%s: the promotion is over already", when)
		}
		s.granted(Grant{Generation: 3, Incarnation: incA, Peer: incB, PeerOwner: true})
		if s.m.job != nil {
			s.tick(ProbeTime)
		}
		s.settle()
		if s.m.role == metadata.Primary || s.m.provider != providerDown {
			t.Errorf("%s: role %v, provider %v", when, s.m.role, s.m.provider)
		}
		if s.m.job != nil {
			t.Errorf("%s: the order has no answer", when)
		}
		if e := s.m.st.Super().Epoch; when == "while it waits" && e != epoch(3, 1) {
			t.Errorf("%s: the epoch was raised to %v", when, e)
		}
	}
}

// memsync: what the peer had received when it was lost is the peer's to write while the
// view counts it as in sync. Only a view without it makes this replica the one that has it.
func TestReceivedWritesAreThePeersByTheView(t *testing.T) {
	for _, out := range []bool{true, false} {
		s := leader(t, func(c *Config) { c.Mode = Memsync })
		s.silently(func() {
			s.write(1, 0, block)
			s.done("commit")
			s.done("disk write")
			s.says(Msg{Kind: MsgReceived, Seqs: []uint64{s.sent[len(s.sent)-1].Seq}})
		})
		if err, ok := s.replies[1]; !ok || err != OK {
			t.Fatalf("not acknowledged: %v", s.replies)
		}
		s.silently(func() { s.loses("the connection was reset"); s.settle() })
		if s.m.marks().Has(metadata.Raised) {
			t.Fatal("raised while the peer counts as in sync")
		}
		g := s.owner(2)
		g.Hold = false
		if g.Peer = 0; !out {
			g.Owner, g.Peer, g.PeerOwner = false, incB, true
		}
		s.silently(func() { s.granted(g); s.settle() })
		if raised := s.m.marks().Has(metadata.Raised); raised != out {
			t.Errorf("the peer is out %v: raised %v", out, raised)
		}
	}
}

// A flush that ended after the lease did is told to nobody, and keeps nobody from
// stepping down.
func TestFlushAfterTheLeaseEnds(t *testing.T) {
	s := leader(t)
	s.silently(func() {
		s.write(1, 0, block)
		s.settle()
		s.request(ReqFlush, 2, 0, 0)
		s.tick(lease)
		s.settle()
		s.order(Command{Kind: CmdRole, Role: metadata.Secondary, Force: true})
		s.settle()
	})
	if err, told := s.replies[2]; told && err == OK {
		t.Error("a flush was acknowledged without a lease")
	}
	if s.m.job != nil || s.m.role != metadata.Secondary {
		t.Errorf("role %v, the order is under way: %v", s.m.role, s.m.job != nil)
	}
}
