package replicate

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hastd/metadata"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

// script feeds events to one machine, with a component and a peer played by hand,
// and writes down what happens: "> " is an event, "  " an effect, "# " a remark.
type script struct {
	t     testing.TB
	m     *Machine
	text  strings.Builder
	quiet bool
	now   Instant
	ids   uint64

	layout  metadata.Layout
	disk    []byte // the metadata area
	open    []pendingOp
	session SessionID
	sent    []Msg // not looked at by the peer yet, payloads and lists copied
	command uint64
	peer    Facts
	silent  bool   // the peer answers no probe
	dirty   []byte // of the peer's map, its first words
	out     []Effect
	replies map[ReqID]Err // of the requests answered so far
}

// pendingOp is an operation the machine waits for.
type pendingOp struct {
	label  string
	effect Effect
	writes []metadata.Write // copied
}

const scriptData = 64 << 20

// scriptSuper is a replica that met its peer before, unless changed.
func scriptSuper(change ...func(sb *metadata.Superblock)) metadata.Superblock {
	sb := metadata.Superblock{
		Resource: "db", Resuid: 0xd0, Size: scriptData, SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16,
		Epoch: epoch(3, 1), Lineage: history(1), Pair: 0x70,
	}
	for _, c := range change {
		c(&sb)
	}
	return sb
}

func newScript(t testing.TB, sb metadata.Superblock, change ...func(c *Config)) *script {
	t.Helper()
	s := &script{t: t, now: 10 * Second, session: 1}
	l, err := metadata.External(metadata.ExternalSize(scriptData), scriptData)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := metadata.Create(l, sb)
	if err != nil {
		t.Fatal(err)
	}
	s.layout, s.disk = l, make([]byte, l.End)
	s.store(ws)
	cfg := Config{
		Resource: "db", Node: "A", Peer: "B", NodeID: 1, PeerID: 2, Timeout: 20 * Second, DiskTimeout: 30 * Second,
		Wall:   func(Instant) int64 { return 1 },
		Random: func() uint64 { s.ids++; return 0x100 + s.ids },
	}
	for _, c := range change {
		c(&cfg)
	}
	s.m = New(cfg)
	s.peer = side("B", 0, 0, 0)
	return s
}

func (s *script) store(ws []metadata.Write) {
	for _, w := range ws {
		copy(s.disk[w.Offset:], w.Data)
	}
}

func (s *script) image() *metadata.Image {
	l, part := s.layout, func(off, n int64) []byte { return append([]byte(nil), s.disk[off:off+n]...) }
	return &metadata.Image{Layout: l, SectorSize: 512,
		Super: [2][]byte{part(l.Super[0], metadata.SuperblockSize), part(l.Super[1], metadata.SuperblockSize)},
		Log:   [2][]byte{part(l.Log[0], metadata.LogSize), part(l.Log[1], metadata.LogSize)},
		Map:   part(l.Map, l.MapPages*metadata.PageSize)}
}

// compare ends a script: what was written down must be what testdata says.
func (s *script) compare(name string) {
	s.t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(s.text.String()), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	got, want := strings.Split(s.text.String(), "\n"), strings.Split(string(b), "\n")
	for i := range max(len(got), len(want)) {
		g, w := "(end)", "(end)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			s.t.Fatalf("%s:%d:\n got %s\nwant %s\n\nwith -update the transcript becomes:\n%s", path, i+1, g, w, s.text.String())
		}
	}
}

func (s *script) line(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(&s.text, format+"\n", args...)
	}
}

func (s *script) say(text string) { s.line("# %s", text) }

// silently does what brings the machine to where a story begins.
func (s *script) silently(f func()) {
	was := s.quiet
	s.quiet = true
	f()
	s.quiet = was
}

// step is one batch.
func (s *script) step(events ...Event) {
	s.t.Helper()
	for i := range events {
		s.line("> %s", showEvent(&events[i]))
	}
	s.out = s.m.Step(s.now, events, s.out[:0])
	for i := range s.out {
		s.take(&s.out[i])
	}
}

func (s *script) take(e *Effect) {
	label := s.showEffect(e)
	s.line("  %s", label)
	switch e.Kind {
	case EffDisk, EffCommit, EffOpen, EffClose, EffStateMark, EffProviderStart, EffProviderStop:
		op := pendingOp{label: label, effect: *e}
		for _, w := range e.Writes {
			op.writes = append(op.writes, metadata.Write{Offset: w.Offset, Data: append([]byte(nil), w.Data...)})
		}
		s.open = append(s.open, op)
	case EffReply:
		if s.replies == nil {
			s.replies = map[ReqID]Err{}
		}
		s.replies[e.Req] = e.Err
	case EffSend:
		msg := e.Msg
		msg.Seqs = append([]uint64(nil), msg.Seqs...)
		s.sent = append(s.sent, msg)
	}
}

// pending finds the oldest operation whose label begins so.
func (s *script) pending(label string) pendingOp {
	s.t.Helper()
	for i, op := range s.open {
		if strings.HasPrefix(op.label, label) {
			s.open = append(s.open[:i:i], s.open[i+1:]...)
			return op
		}
	}
	s.t.Fatalf("nothing waits for %q:\n%s", label, s.text.String())
	return pendingOp{}
}

// idle says whether nothing whose label begins so is under way.
func (s *script) none(label string) {
	s.t.Helper()
	for _, op := range s.open {
		if strings.HasPrefix(op.label, label) {
			s.t.Fatalf("%q is under way already", op.label)
		}
	}
}

// answer is how an operation ends.
func (s *script) answer(op pendingOp, err Err) Event {
	ev := Event{Op: op.effect.Op, Err: err}
	switch op.effect.Kind {
	case EffDisk:
		ev.Kind = EvDone
		if d := op.effect.Disk; d == DiskReadHash || d == DiskCompare || d == DiskRead && op.effect.Buf == 0 {
			ev.Buf = 900
		}
		if op.effect.Disk == DiskCompare {
			ev.Mask = op.effect.Mask
		}
	case EffCommit:
		ev.Kind = EvCommitted
		if err == OK {
			s.store(op.writes)
		}
	case EffOpen:
		ev.Kind = EvOpened
		ev.Image = s.image()
	case EffClose:
		ev.Kind = EvClosed
	case EffStateMark:
		ev.Kind = EvMarked
	case EffProviderStart:
		ev.Kind = EvProviderUp
	case EffProviderStop:
		ev.Kind = EvProviderDown
	}
	return ev
}

func (s *script) done(label string) {
	s.t.Helper()
	op := s.pending(label)
	s.line("> done: %s", op.label)
	s.quietEvent(s.answer(op, OK))
}

func (s *script) fails(label, text string) {
	s.t.Helper()
	op := s.pending(label)
	s.line("> failed: %s", op.label)
	ev := s.answer(op, ErrIO)
	ev.Text = text
	s.quietEvent(ev)
}

// quietEvent is step for an event that was written down already.
func (s *script) quietEvent(ev Event) {
	s.t.Helper()
	s.out = s.m.Step(s.now, []Event{ev}, s.out[:0])
	for i := range s.out {
		s.take(&s.out[i])
	}
}

// tick lets time pass.
func (s *script) tick(d Instant) {
	s.now += d
	s.line("> %d ms pass", d/Millisecond)
	s.quietEvent(Event{Kind: EvTick})
}

func (s *script) order(c Command) {
	s.t.Helper()
	s.command++
	c.ID = s.command
	s.step(Event{Kind: EvCommand, Command: &c})
}

func (s *script) role(r metadata.Role) { s.t.Helper(); s.order(Command{Kind: CmdRole, Role: r}) }

func (s *script) write(req ReqID, off, n int64, flags ...Flags) {
	s.t.Helper()
	s.request(ReqWrite, req, off, n, flags...)
}

func (s *script) request(kind Request, req ReqID, off, n int64, flags ...Flags) {
	s.t.Helper()
	ev := Event{Kind: EvRequest, Request: kind, Req: req, Off: off, Len: n, Buf: Handle(req)}
	for _, f := range flags {
		ev.Flags |= f
	}
	s.step(ev)
}

// says is a message of the peer.
func (s *script) says(msg Msg) {
	s.t.Helper()
	msg.Conn = s.m.conn
	s.step(Event{Kind: EvMessage, Session: s.session, Msg: msg})
}

func (s *script) loses(reason string) {
	s.t.Helper()
	s.step(Event{Kind: EvSessionDown, Session: s.session, Text: reason})
	s.session++
	s.sent = nil
}

// settle answers everything under way, and lets the peer agree to what it is asked,
// until nothing is left.
func (s *script) settle() {
	s.t.Helper()
	for range 10000 {
		switch {
		case len(s.open) > 0:
			s.done(s.open[0].label)
		case len(s.sent) > 0:
			msg := s.sent[0]
			s.sent = s.sent[1:]
			s.reply(&msg)
		default:
			return
		}
	}
	s.t.Fatal("no end")
}

// reply is what a well-behaved peer answers.
func (s *script) reply(msg *Msg) {
	s.t.Helper()
	switch msg.Kind {
	case MsgFacts:
		if s.peer.Role == metadata.Primary || s.m.role != metadata.Primary {
			s.tell()
		}
		if s.peer.Role == metadata.Primary {
			v := Judge(&s.m.mine, &s.peer)
			s.says(Msg{Kind: MsgBegin, Control: &Begin{Verdict: v.String(), Full: v.Full, Epoch: epoch(s.peer.Epoch.Number+1, 2), Pair: 0x71, PairOld: s.peer.Pair, Size: scriptData, Sector: 512}})
		}
	case MsgRenegotiate:
		s.tell() // the secondary speaks first
	case MsgBegin:
		if s.dirty != nil {
			s.says(Msg{Kind: MsgMap, Control: &MapPart{Bits: s.dirty}})
		}
		s.says(Msg{Kind: MsgReady})
	case MsgReady:
		s.says(Msg{Kind: MsgFlow})
	case MsgWrite, MsgZero, MsgSyncData:
		s.says(Msg{Kind: MsgWrote, Seqs: []uint64{msg.Seq}})
	case MsgProbe:
		s.says(Msg{Kind: MsgAlive})
	case MsgFlush:
		s.says(Msg{Kind: MsgFlushed, Seq: msg.Seq})
	case MsgSyncHash:
		s.says(Msg{Kind: MsgSyncNeed, Seq: msg.Seq})
	case MsgSyncEnd:
		s.says(Msg{Kind: MsgSyncEnded, Control: &SyncEnd{Localcnt: s.peer.Localcnt, Lineage: s.peer.Lineage, Pair: 0x71}})
	}
}

func (s *script) tell() {
	s.t.Helper()
	f := s.peer
	s.says(Msg{Kind: MsgFacts, Control: &f})
}

// up connects; a secondary peer that meets a primary tells its facts first.
func (s *script) up() {
	s.t.Helper()
	s.step(Event{Kind: EvSessionUp, Session: s.session, PeerRole: s.peer.Role})
	if s.m.role == metadata.Primary {
		s.tell()
	}
}

// secondary brings the machine to role secondary, linked if a peer is there.
func (s *script) secondary(linked bool) {
	s.t.Helper()
	s.silently(func() {
		s.role(metadata.Secondary)
		s.settle()
		if linked {
			s.up()
			s.settle()
		}
	})
}

// primary brings it to role primary with an equal peer.
func (s *script) primary() {
	s.t.Helper()
	s.secondary(true)
	s.silently(func() {
		s.role(metadata.Primary)
		s.settle()
	})
	if s.m.role != metadata.Primary || s.m.phase != linked || s.m.provider != providerUp {
		s.t.Fatalf("not a linked primary: %v, phase %d", s.m.role, s.m.phase)
	}
}
