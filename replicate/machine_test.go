package replicate

import (
	"strings"
	"testing"

	"hastd/metadata"
)

// Transcripts: what the machine does, effect by effect, in stories that an
// administrator or a reader of the replication rules knows. `go test -run
// Transcript -update` writes them anew; read the difference before committing it.

const block = metadata.BlockSize

func neu(sb *metadata.Superblock) {
	sb.Resuid, sb.Size, sb.Pair, sb.Lineage, sb.Epoch = 0, 0, 0, nil, metadata.Epoch{}
}

func TestTranscriptPromoteNewPair(t *testing.T) {
	s := newScript(t, scriptSuper(neu))
	s.peer = side("B", 0, 0, 0, fresh)
	s.say("a new replica is opened and meets its new peer")
	s.role(metadata.Secondary)
	s.done("open")
	s.done("commit")
	s.up()
	s.tell()
	s.say("promotion draws the identity, then agrees anew: the peer adopts")
	s.role(metadata.Primary)
	s.done("commit")
	s.done("provider start")
	s.peer.Localcnt = 0
	s.tell()
	s.say("everything is dirty, durably, before the peer adopts")
	s.done("commit")
	s.says(Msg{Kind: MsgReady})
	s.done("commit")
	s.compare("promote-new-pair")
}

func TestTranscriptFullsyncWrite(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.say("the first write of a term: its extent and the mark crashed-primary are durable before disk and peer see it")
	s.write(1, 0, block)
	s.none("disk write")
	s.done("commit")
	s.done("disk write 0")
	s.say("not answered before the peer wrote, too")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.say("a new extent needs the log alone; here the peer is first")
	s.write(2, 5<<20, 2*block)
	s.done("commit")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.done("disk write")
	s.say("a write over two extents takes both at once")
	s.write(3, 8<<20-block, 2*block)
	s.done("commit")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.done("disk write")
	s.compare("fullsync-write")
}

func TestTranscriptSecondTerm(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.write(1, 0, block)
		s.settle()
		s.role(metadata.Secondary)
		s.settle()
		s.peer.Epoch, s.peer.Pair = s.m.st.Super().Epoch, s.m.st.Super().Pair
		s.role(metadata.Primary)
		s.settle()
	})
	s.say("the extent is in the log still, but the mark crashed-primary is not set: it comes first")
	s.write(2, 0, block)
	s.none("disk write")
	s.done("commit")
	s.compare("second-term")
}

func TestTranscriptHotWrite(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("the extent is in the log: no commit")
	s.write(2, 4*block, block)
	s.none("commit")
	s.say("one that overlaps waits; one that does not passes it")
	s.write(3, 4*block, 2*block)
	s.write(4, 9*block, block)
	s.request(ReqRead, 5, 5*block, block)
	s.done("disk write 16384+4096")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq - 1}})
	s.done("disk write 16384+8192")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.compare("hot-write")
}

func TestTranscriptFlush(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("a flush is answered when both flushed; what comes meanwhile waits for the next")
	s.request(ReqFlush, 2, 0, 0)
	s.request(ReqFlush, 3, 0, 0)
	s.write(4, 8*block, block)
	s.done("disk flush")
	s.says(Msg{Kind: MsgFlushed, Seq: s.m.round.seq})
	s.done("disk flush")
	s.says(Msg{Kind: MsgFlushed, Seq: s.m.round.seq})
	s.say("a write with FUA is a write, then a flush")
	s.silently(s.settle)
	s.write(5, 0, block, FUA)
	s.done("disk write")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.done("disk flush")
	s.says(Msg{Kind: MsgFlushed, Seq: s.m.round.seq})
	s.compare("flush")
}

func TestTranscriptMemsync(t *testing.T) {
	s := newScript(t, scriptSuper(), func(c *Config) { c.Mode = Memsync })
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("the peer has it in memory, the local disk wrote it: answered")
	s.write(2, 0, block)
	s.says(Msg{Kind: MsgReceived, Seqs: []uint64{s.m.seq}})
	s.done("disk write")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.say("received alone is not enough, nor is the local disk alone")
	s.write(3, 0, block)
	s.done("disk write")
	s.says(Msg{Kind: MsgReceived, Seqs: []uint64{s.m.seq}})
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.say("a flush waits for both")
	s.request(ReqFlush, 4, 0, 0)
	s.done("disk flush")
	s.says(Msg{Kind: MsgFlushed, Seq: s.m.round.seq})
	s.compare("memsync")
}

func TestTranscriptAsync(t *testing.T) {
	s := newScript(t, scriptSuper(), func(c *Config) { c.Mode = Async })
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("answered when the local disk wrote it")
	s.write(2, 0, block)
	s.done("disk write")
	s.say("a flush is answered after the local one; the peer's follows")
	s.request(ReqFlush, 3, 0, 0)
	s.done("disk flush")
	s.say("lost with a write the peer never confirmed: the raise comes at the loss itself")
	s.loses("connection reset")
	s.done("commit")
	s.compare("async")
}

func TestTranscriptPeerLost(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("lost with a write in flight: nothing is answered before the raise is durable")
	s.write(2, 0, block)
	s.done("disk write")
	s.loses("connection reset")
	s.write(3, 4*block, block)
	s.done("disk write")
	s.done("commit")
	s.say("from now on alone, without another raise")
	s.write(4, 20<<20, block)
	s.done("commit")
	s.done("disk write")
	s.say("the peer returns, behind")
	s.peer.Epoch = s.m.st.Super().Epoch
	s.peer.Lineage = history(1)
	s.peer.Pair = s.m.st.Super().Pair
	s.up()
	s.say("until data flows nothing is acknowledged")
	s.write(5, 0, block)
	s.says(Msg{Kind: MsgReady})
	s.done("commit")
	s.done("commit")
	s.compare("peer-lost")
}

func TestTranscriptPeerLostRead(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.say("a read alone needs no raise; a flush of what both flushed needs none either")
	s.loses("connection reset")
	s.request(ReqRead, 1, 0, block)
	s.done("disk read")
	s.request(ReqFlush, 2, 0, 0)
	s.done("disk flush")
	s.compare("peer-lost-read")
}

func TestTranscriptPeerLostUnflushed(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("the peer may hold this write unflushed: a flush alone needs the raise")
	s.loses("connection reset")
	s.request(ReqFlush, 2, 0, 0)
	s.done("disk flush")
	s.done("commit")
	s.compare("peer-lost-unflushed")
}

func TestTranscriptSuspend(t *testing.T) {
	s := newScript(t, scriptSuper(), func(c *Config) { c.Suspend = true })
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("on-peer-loss suspend: what is in flight waits")
	s.write(2, 0, block)
	s.loses("connection reset")
	s.done("disk write")
	s.write(3, 4*block, block)
	s.request(ReqFlush, 4, 0, 0)
	s.say("the operator goes on alone")
	s.order(Command{Kind: CmdResume})
	for _, op := range []string{"commit", "disk write", "disk flush"} {
		s.done(op)
	}
	s.order(Command{Kind: CmdResume})
	s.compare("suspend")
}

func TestTranscriptResumeError(t *testing.T) {
	s := newScript(t, scriptSuper(), func(c *Config) { c.Suspend = true })
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.write(2, 0, block)
	s.loses("connection reset")
	s.done("disk write")
	s.write(3, 4*block, block)
	s.request(ReqFlush, 4, 0, 0)
	s.say("the operator lets what waits fail; nothing was raised")
	s.order(Command{Kind: CmdResume, WithError: true})
	s.write(5, 4*block, block)
	s.request(ReqRead, 6, 0, block)
	s.compare("resume-error")
}

func TestTranscriptSecondary(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.peer.Role = metadata.Primary
	s.secondary(true)
	if s.m.phase != linked {
		t.Fatal("not linked")
	}
	s.say("a new extent is journalled before the primary's write is carried out")
	s.says(Msg{Kind: MsgWrite, Seq: 1, Off: 0, Len: block, Buf: 501})
	s.none("disk write")
	s.done("commit")
	s.done("disk write")
	s.say("one that is in the log already goes straight to the disk")
	s.says(Msg{Kind: MsgWrite, Seq: 2, Off: 8 * block, Len: block, Buf: 502})
	s.done("disk write")
	s.say("a flush covers what was received and not yet written")
	s.says(Msg{Kind: MsgWrite, Seq: 3, Off: 0, Len: block, Buf: 503})
	s.says(Msg{Kind: MsgFlush, Seq: 4})
	s.none("disk flush")
	s.done("disk write")
	s.done("disk flush")
	if !s.m.st.Unflushed() {
		t.Fatal("clean before the primary said so")
	}
	s.says(Msg{Kind: MsgClean, Seq: 4})
	if s.m.st.Unflushed() {
		t.Fatal("flushed by both, and not clean")
	}
	s.say("zeroes, and a read for a primary that cannot read its own")
	s.says(Msg{Kind: MsgZero, Seq: 5, Off: 0, Len: 4 * block})
	s.done("disk zero")
	s.says(Msg{Kind: MsgRead, Seq: 6, Off: 0, Len: block})
	s.done("disk read")
	s.say("cut with a write under way: its end is told to nobody")
	s.says(Msg{Kind: MsgWrite, Seq: 7, Off: 0, Len: block, Buf: 507})
	s.loses("connection reset")
	s.done("disk write")
	s.compare("secondary")
}

func TestTranscriptDemote(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle() })
	s.say("the provider goes, both flush, crashed-primary is cleared, the peer is told")
	s.role(metadata.Secondary)
	s.done("provider stop")
	s.done("disk flush")
	s.says(Msg{Kind: MsgFlushed, Seq: s.m.round.seq})
	s.done("commit")
	s.say("and to init")
	s.role(metadata.Init)
	s.done("commit")
	s.done("close")
	s.compare("demote")
}

// TestTranscriptDemoteAlone: the peer may have lost what it acknowledged and never
// flushed, so this node must not look like one that has nothing more.
func TestTranscriptDemoteAlone(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.write(1, 0, block)
		s.settle()
		s.loses("connection reset")
	})
	s.role(metadata.Secondary)
	s.settle()
	if sb := s.m.st.Super(); s.m.role != metadata.Secondary || !sb.Marks.Has(raised|crashed) {
		t.Errorf("role %s, marks %s: a peer that lost its cache would be copied from", s.m.role, sb.Marks)
	}
	s.compare("demote-alone")
}

func TestTranscriptDemoteInUse(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.role(metadata.Secondary)
	op := s.pending("provider stop")
	s.line("> in use: provider stop")
	ev := s.answer(op, ErrBusy)
	ev.Text = "mounted on /srv by 3 processes"
	s.quietEvent(ev)
	s.compare("demote-in-use")
}

// The provider is closed when the disk fails: a node that stayed primary would serve
// nobody, and look as if it did.
func TestTranscriptDemoteOnFailingDisk(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.role(metadata.Secondary)
	s.done("provider stop")
	for len(s.open) > 0 && !strings.HasPrefix(s.open[0].label, "commit") {
		s.done(s.open[0].label)
	}
	s.says(Msg{Kind: MsgFlushed, Seq: s.sent[len(s.sent)-1].Seq})
	s.fails("commit", "write error")
	s.says(Msg{Kind: MsgTookOver, Control: &TakeOver{Localcnt: 1, Lineage: history(2, 1)}})
	s.done("state mark")
	if s.m.role != metadata.Secondary || s.m.job != nil || s.m.provider != providerDown {
		t.Errorf("role %s, provider %d, an order under way: %v", s.m.role, s.m.provider, s.m.job != nil)
	}
	s.compare("demote-on-failing-disk")
}

// Once stepped down, what fails on the way to init is that order's failure: the node does
// not step down once more.
func TestFailedLeaveStepsDownOnce(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.role(metadata.Init)
	s.done("provider stop")
	for commits := 0; ; {
		switch {
		case len(s.sent) > 0 && s.sent[0].Kind == MsgFlush:
			s.says(Msg{Kind: MsgFlushed, Seq: s.sent[0].Seq})
			s.sent = nil
			continue
		case len(s.sent) > 0:
			s.sent = s.sent[1:]
			continue
		}
		if len(s.open) == 0 {
			break
		}
		if strings.HasPrefix(s.open[0].label, "commit") {
			if commits++; commits == 2 {
				s.fails("commit", "write error")
				break
			}
		}
		s.done(s.open[0].label)
	}
	s.silently(s.settle)
	if n := strings.Count(s.text.String(), "send role secondary"); n != 1 || s.m.job != nil {
		t.Errorf("it stepped down %d times, an order under way: %v\n%s", n, s.m.job != nil, s.text.String())
	}
	if n := strings.Count(s.text.String(), "init → secondary"); n != 0 {
		t.Errorf("it became a secondary on its way to init\n%s", s.text.String())
	}
}

func TestTranscriptPromoteRefused(t *testing.T) {
	promote := func(s *script, force bool) {
		s.t.Helper()
		s.order(Command{Kind: CmdRole, Role: metadata.Primary, Force: force})
		if s.m.job != nil && s.m.job.stage == asking && !s.silent {
			s.says(Msg{Kind: MsgAlive})
		}
		if s.m.job != nil {
			s.tick(ProbeTime)
		}
	}
	s := newScript(t, scriptSuper(func(sb *metadata.Superblock) { sb.Marks = outdated }))
	s.secondary(false)
	s.say("outdated, the peer is away")
	promote(s, false)
	s.say("the same by force")
	promote(s, true)
	s.done("commit")
	s.done("provider start")
	all := s.text.String()
	for _, c := range []struct {
		say    string
		sb     metadata.Superblock
		peer   *Facts
		silent bool
	}{
		{"inconsistent, the peer is away", scriptSuper(func(sb *metadata.Superblock) { sb.Marks = inconsistent }), nil, false},
		{"new, the peer is away", scriptSuper(neu), nil, false},
		{"not stopped cleanly while secondary, the peer is away", scriptSuper(func(sb *metadata.Superblock) { sb.PrevRole = metadata.Secondary }), nil, false},
		{"new, and the peer has data", scriptSuper(neu), ptr(side("B", 0, 0, 0)), false},
		{"outdated, and the peer is inconsistent", scriptSuper(func(sb *metadata.Superblock) { sb.Marks = outdated }), ptr(side("B", 0, 0, inconsistent)), false},
		{"split-brain", scriptSuper(func(sb *metadata.Superblock) { sb.Localcnt, sb.Marks = 1, raised }), ptr(side("B", 1, 0, raised)), false},
		{"the peer took over after this node's disk failed", scriptSuper(func(sb *metadata.Superblock) { sb.Marks = inconsistent }), ptr(side("B", 1, 0, raised, past(2, 1))), false},
		{"outdated, and the peer that has everything gives no sign of life", scriptSuper(func(sb *metadata.Superblock) { sb.Localcnt, sb.Marks = 1, outdated }), ptr(side("B", 0, 1, 0)), true},
		{"a good replica, the peer is away", scriptSuper(), nil, false},
	} {
		s := newScript(t, c.sb)
		s.silent = c.silent
		if c.peer != nil {
			s.peer = *c.peer
		}
		s.secondary(c.peer != nil)
		s.say(c.say)
		promote(s, false)
		if s.m.job != nil {
			s.silently(s.settle)
			s.line("  … %s", s.m.role)
		}
		all += s.text.String()
	}
	s = newScript(t, scriptSuper())
	s.peer = side("B", 0, 0, 0, primary)
	s.secondary(true)
	s.say("the peer is primary and alive")
	s.role(metadata.Primary)
	s.says(Msg{Kind: MsgAlive})
	s.say("the peer was primary and gives no sign of life")
	s.silent = true
	promote(s, false)
	s.done("commit")
	s.done("provider start")
	all += s.text.String()
	s = newScript(t, scriptSuper(), func(c *Config) { c.NeedLease = true })
	s.secondary(false)
	s.say("quorum majority without a lease")
	promote(s, false)
	all += s.text.String()
	s.text.Reset()
	s.text.WriteString(all)
	s.compare("promote-refused")
}

func ptr(f Facts) *Facts { return &f }

func TestTranscriptSyncToPeer(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.loses("connection reset")
		s.write(1, 0, 2*block)
		s.settle()
		s.peer.Epoch, s.peer.Pair = s.m.st.Super().Epoch, s.m.st.Super().Pair
		s.up()
	})
	s.say("what was written alone is copied; nothing is cleared on the medium before both sides say the sync ended")
	s.says(Msg{Kind: MsgReady})
	s.done("commit")
	s.done("commit")
	s.done("disk read-hash")
	s.says(Msg{Kind: MsgSyncNeed, Seq: s.m.seq, Mask: 1})
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.done("disk flush")
	s.says(Msg{Kind: MsgFlushed, Seq: s.m.round.seq})
	s.say("1: the source")
	s.done("commit")
	s.say("2: the target")
	s.says(Msg{Kind: MsgSyncEnded, Control: &SyncEnd{Localcnt: 0, Pair: s.m.sync.pair}})
	s.done("commit")
	s.say("3: the maps")
	s.done("commit")
	s.compare("sync-to-peer")
}

func TestTranscriptSplitBrain(t *testing.T) {
	s := newScript(t, scriptSuper(func(sb *metadata.Superblock) { sb.Localcnt, sb.Marks, sb.Lineage = 1, raised, history(2, 1) }))
	s.peer = side("B", 1, 0, raised, past(3, 1))
	s.secondary(false)
	s.say("both wrote alone")
	s.up()
	s.tell()
	s.tick(linger)
	s.say("the operator gives up this node's data; the next agreement makes it behind")
	s.order(Command{Kind: CmdRecover})
	s.done("commit")
	s.silently(func() { s.loses("recovery begins") })
	s.up()
	s.tell()
	s.compare("split-brain")
}

// TestTranscriptToldLoss: what only the peer had acknowledged is gone when it
// returns with another instance; the next flush of the application says so, and no
// flush of the machine's own takes that away from it.
func TestTranscriptToldLoss(t *testing.T) {
	s := newScript(t, scriptSuper(func(sb *metadata.Superblock) { sb.Marks = inconsistent }))
	s.peer = side("B", 1, 0, raised, past(2, 1))
	s.dirty = []byte{15, 0, 0, 0, 0, 0, 0, 0}
	s.primary()
	s.say("a primary that is being copied to acknowledges what the peer has")
	s.silently(func() { s.write(1, 1<<20, block); s.settle() })
	s.say("the peer loses its power and returns")
	s.silently(func() { s.loses("connection reset") })
	s.peer.Instance, s.peer.Epoch, s.peer.Pair = 2, s.m.st.Super().Epoch, s.m.st.Super().Pair
	s.silently(s.up)
	s.says(Msg{Kind: MsgReady})
	s.done("commit")
	s.done("commit")
	s.sent = nil
	s.say("what differs is copied, and the sync comes to its end")
	s.silently(s.settle)
	for _, r := range append([]*req(nil), s.m.active...) {
		s.says(Msg{Kind: MsgSyncBlocks, Seq: r.seq})
	}
	s.settle()
	s.say("now the application flushes")
	s.request(ReqFlush, 2, 0, 0)
	s.settle()
	s.request(ReqFlush, 3, 0, 0)
	s.settle()
	s.compare("told-loss")
}

// A promotion waits for word of a peer since it fell silent, not since the order.
func TestPromotionCountsTheSilenceBefore(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.secondary(true)
	s.silently(func() { s.step(Event{Kind: EvSessionDown, Session: s.m.session, Text: "connection reset"}) })
	lost := s.now
	s.now += 600 * Millisecond
	s.role(metadata.Primary)
	if at, ok := s.m.Deadline(); !ok || at > lost+ProbeTime {
		t.Errorf("it looks again %d ms after the loss, want %d", (at-lost)/Millisecond, ProbeTime/Millisecond)
	}
}

// A window of an earlier agreement whose disk is slow has a number that belongs to
// another request by now: when the sync stops, that one keeps it.
func TestOrphanLeavesTheNumberOfAnother(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	m := s.m
	write, orphan := m.newReq(kWrite), m.newReq(kSync)
	write.seq, orphan.seq = 38, 38
	m.bySeq[38] = write
	orphan.op, orphan.orphan, orphan.length = 1, true, WindowSize
	m.lock(orphan)
	m.sync.phase = syncCopying
	m.stopSync("the disk failed")
	if m.bySeq[38] != write {
		t.Error("the confirmation of the write would be taken for a late one")
	}
}

// A component that somebody uses can be had later: the order may be given again.
func TestOpenBusyComponent(t *testing.T) {
	for err, want := range map[Err]RefusalCode{ErrBusy: RefusedBusy, ErrOther: RefusedIO} {
		s := newScript(t, scriptSuper())
		s.role(metadata.Secondary)
		ev := s.answer(s.pending("open"), err)
		ev.Image, ev.Text = nil, "the disk is in use by hastd (pid 7)"
		s.quietEvent(ev)
		got := RefusalCode(0)
		for i := range s.out {
			if e := &s.out[i]; e.Kind == EffAnswer && e.Refusal != nil {
				got = e.Refusal.Code
			}
		}
		if got != want || s.m.role != metadata.Init {
			t.Errorf("error %d: refused with %d, want %d; role %s", err, got, want, s.m.role)
		}
	}
}
