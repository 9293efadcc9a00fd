package sim

import (
	"bytes"
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// stage is where a script is played: a test, or a directed run (directed.go). Fatal
// and Fatalf do not return.
type stage interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
	// Missed ends a script whose moment did not come: nothing is wrong.
	Missed(string, ...any)
}

// script plays a world without clients, operators and faults of its own: one thing
// after the other. All oracles judge as they do in random runs.
type script struct {
	stage    stage
	log      *bytes.Buffer // in a test: the transcript
	catch    func(func())  // in a test: turns an oracle's word into a failure
	pause    func()        // in a directed run: lets a random time pass between steps
	w        *World
	a, b     *node
	verdicts [2][]string // as each node reported them
	reasons  [2]string   // of the last refusal or split-brain
	splits   int
	syncs    []string // directions of syncs as the primaries told them
}

// scriptProfile is what scripts are written for: their blocks lie below 8 MiB.
func scriptProfile() Profile {
	return Profile{Mode: replicate.Fullsync, Sector: 512, DataSize: 8 << 20, Think: millisecond, DiskTime: 50 * microsecond, NetTime: 50 * microsecond, Hot: 16, OperatorGap: second}
}

// listen makes a script for a world that was built.
func listen(w *World, st stage) *script {
	s := &script{stage: st, w: w, a: &w.nodes[0], b: &w.nodes[1]}
	w.hooks.report = func(n *node, r *replicate.Report) {
		switch r.Kind {
		case replicate.ReportVerdict:
			s.verdicts[n.id] = append(s.verdicts[n.id], r.New)
		case replicate.ReportRefused:
			s.reasons[n.id] = r.Reason + "; " + r.New
		case replicate.ReportSplitBrain:
			s.splits++
			s.reasons[n.id] = r.Reason + "; " + r.New
		case replicate.ReportSyncStart:
			s.syncs = append(s.syncs, n.name+" "+r.New)
		}
	}
	return s
}

// step comes before each thing that a script does at leisure.
func (s *script) step() {
	if s.pause != nil {
		s.pause()
	}
}

// do runs f; in a test an oracle's word fails it.
func (s *script) do(f func()) {
	s.stage.Helper()
	if s.catch != nil {
		s.catch(f)
		return
	}
	f()
}

// until lets the world go on until something is so.
func (s *script) until(what string, cond func() bool) {
	s.stage.Helper()
	s.untilWithin(60*second, what, cond)
}

func (s *script) untilWithin(span int64, what string, cond func() bool) {
	s.stage.Helper()
	end, events := s.w.now+span, s.w.events+200_000
	s.do(func() {
		s.stage.Helper()
		for !cond() {
			if s.w.now > end || s.w.events > events || !s.w.next() {
				s.stage.Fatalf("%s did not happen; A: %s; B: %s", what, s.w.describe(s.a), s.w.describe(s.b))
			}
		}
	})
}

// pass lets time pass.
func (s *script) pass(d int64) {
	s.stage.Helper()
	done := false
	s.w.after(d, func() { done = true })
	s.until("time", func() bool { return done })
}

// order gives a command and waits for its answer.
func (s *script) order(n *node, c replicate.Command) *replicate.Refusal {
	s.stage.Helper()
	var o *order
	s.do(func() { o = n.command(c) })
	s.until("the answer to "+commandString(&c), func() bool { return o.done })
	return o.answer
}

func (s *script) must(n *node, c replicate.Command) {
	s.stage.Helper()
	if r := s.order(n, c); r != nil {
		s.stage.Fatalf("%s: %s refused: %s (%s)", n.name, commandString(&c), r.Text, r.Hint)
	}
}

func (s *script) boot(n *node) {
	s.stage.Helper()
	s.step()
	if n.state == off {
		n.state = stopped
	}
	s.do(n.start)
	s.verdicts = [2][]string{}
	s.must(n, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
}

func (s *script) promote(n *node) {
	s.stage.Helper()
	s.step()
	s.must(n, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary})
}

func (s *script) force(n *node) {
	s.stage.Helper()
	s.step()
	s.must(n, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary, Force: true})
}

func (s *script) demote(n *node) {
	s.stage.Helper()
	s.step()
	s.must(n, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	p := s.w.peerOf(n)
	s.until("the peer to hear of the demotion", func() bool {
		return p.sess == nil || p.state != running || p.status().PeerRole != "primary" || p.status().Connection != "connected"
	})
}

func (s *script) recover(n *node) {
	s.stage.Helper()
	s.step()
	s.must(n, replicate.Command{Kind: replicate.CmdRecover})
}

// crawl makes syncs crawl: reading a window for them takes slowWindow, one at a time.
func (s *script) crawl() { s.a.hashTime, s.b.hashTime = slowWindow, slowWindow }

// fast ends that for what is read from now on.
func (s *script) fast() { s.a.hashTime, s.b.hashTime = 0, 0 }

// ask issues a request without waiting for the answer.
func (s *script) ask(n *node, kind replicate.Request, block int) int {
	s.stage.Helper()
	if n.prov != provUp {
		s.stage.Missed("%s has no provider", n.name)
	}
	s.do(func() { n.app.issue(kind, 0, block*sectorsPerBlock, sectorsPerBlock) })
	return len(s.w.ledger.reqs) - 1
}

func (s *script) await(req int) replicate.Err {
	s.stage.Helper()
	var got replicate.Err
	old := s.w.hooks.reply
	s.w.hooks.reply = func(n *node, r *request, err replicate.Err) {
		if r == &s.w.ledger.reqs[req] {
			got = err
		}
	}
	s.until("an answer", func() bool { return s.w.ledger.reqs[req].done })
	s.w.hooks.reply = old
	return got
}

// write writes blocks, one after the other, and returns the last write.
func (s *script) write(n *node, blocks ...int) int32 {
	s.stage.Helper()
	var last int32
	for _, b := range blocks {
		if len(blocks) < 5 {
			s.step()
		}
		r := s.ask(n, replicate.ReqWrite, b)
		if err := s.await(r); err != replicate.OK {
			s.stage.Fatalf("%s: write of block %d ended in error %d", n.name, b, err)
		}
		last = s.w.ledger.reqs[r].write
	}
	return last
}

func (s *script) flush(n *node) {
	s.stage.Helper()
	if err := s.await(s.ask(n, replicate.ReqFlush, 0)); err != replicate.OK {
		s.stage.Fatalf("%s: flush ended in error %d", n.name, err)
	}
}

// read reads a block; the oracle judges what it shows.
func (s *script) read(n *node, block int) {
	s.stage.Helper()
	if err := s.await(s.ask(n, replicate.ReqRead, block)); err != replicate.OK {
		s.stage.Fatalf("%s: read of block %d ended in error %d", n.name, block, err)
	}
}

// many are blocks in n different windows' worth of places.
func many(n int) []int {
	var b []int
	for i := range n {
		b = append(b, i*23%2000)
	}
	return b
}

// holds says whether a node's replica holds a write, as a read would show it.
func (s *script) holds(n *node, wr int32) bool {
	x := &s.w.ledger.writes[wr]
	for i := x.sec; i < x.sec+x.n; i++ {
		if n.disk.cur[i] != s.w.ledger.value(wr, int(i)) {
			return false
		}
	}
	return true
}

// cut parts the two and waits until both know.
func (s *script) cut() {
	s.stage.Helper()
	s.step()
	s.do(func() { s.w.link.setCut(0, true); s.w.link.setCut(1, true) })
	s.until("both ends notice the cut", func() bool { return s.a.sess == nil && s.b.sess == nil })
	s.pass(millisecond)
}

// cutNow parts the two at this very moment.
func (s *script) cutNow() {
	s.w.link.setCut(0, true)
	s.w.link.setCut(1, true)
	s.w.link.down(s.a, "cut")
	s.w.link.down(s.b, "cut")
}

func (s *script) heal() {
	s.step()
	s.do(func() { s.w.link.setCut(0, false); s.w.link.setCut(1, false) })
	s.verdicts = [2][]string{}
}

func (s *script) kill(n *node)  { s.stage.Helper(); s.do(n.die) }
func (s *script) power(n *node) { s.stage.Helper(); s.do(n.powerLoss) }

func (s *script) connected() {
	s.stage.Helper()
	s.until("a connection", func() bool { return s.both("connected") })
}

func (s *script) flowing() {
	s.stage.Helper()
	s.until("data to flow", func() bool { return s.a.inFlow() && s.b.inFlow() })
}

// pair boots both, promotes A and waits until the pair is complete.
func (s *script) pair() {
	s.stage.Helper()
	s.boot(s.a)
	s.boot(s.b)
	s.connected()
	s.promote(s.a)
	s.complete()
	s.counters(0, 0, 0, 0)
}

// complete lets syncs run, waits until both say complete and all is quiet, and compares.
func (s *script) complete() {
	s.stage.Helper()
	s.fast()
	s.until("the pair to be complete", func() bool { return s.w.complete() && s.w.still() && s.a.inFlow() })
	s.do(func() {
		s.w.oracleEqual()
		s.w.oracleDirty("when complete", false)
		s.w.oracleHandles()
	})
}

// verdict waits until both judged since the last heal and compares the last
// verdict of each with what is wanted (a prefix).
func (s *script) verdict(want string) {
	s.stage.Helper()
	s.until("a verdict", func() bool { return len(s.verdicts[0]) > 0 && len(s.verdicts[1]) > 0 })
	for i, v := range s.verdicts {
		if got := v[len(v)-1]; !strings.HasPrefix(got, want) {
			s.stage.Fatalf("%s's verdict is %q, not %q", s.w.nodes[i].name, got, want)
		}
	}
}

// split waits until both nodes say split-brain.
func (s *script) split() {
	s.stage.Helper()
	s.verdict("split-brain")
	s.until("both to say split-brain", func() bool { return s.both("split-brain") })
}

// refused waits until both nodes say refused.
func (s *script) refused() {
	s.stage.Helper()
	s.until("both to say refused", func() bool { return s.both("refused") })
}

// both says whether the connection is that for both nodes. One that crashed says nothing.
func (s *script) both(connection string) bool {
	for _, n := range []*node{s.a, s.b} {
		if n.state != running || n.status().Connection != connection {
			return false
		}
	}
	return true
}

func (s *script) counters(al, ar, bl, br uint64) {
	s.stage.Helper()
	a, b := &s.a.judge.sb, &s.b.judge.sb
	if a.Localcnt != al || a.Remotecnt != ar || b.Localcnt != bl || b.Remotecnt != br {
		s.stage.Fatalf("counters are A%d/%d B%d/%d, not A%d/%d B%d/%d", a.Localcnt, a.Remotecnt, b.Localcnt, b.Remotecnt, al, ar, bl, br)
	}
}

// midSync waits until a slow sync has copied something and is not done.
func (s *script) midSync() {
	s.stage.Helper()
	copied := 0
	old := s.w.hooks.deliver
	s.w.hooks.deliver = func(n *node, m *replicate.Msg) {
		if m.Kind == replicate.MsgSyncData || m.Kind == replicate.MsgSyncBlocks || m.Kind == replicate.MsgSyncNeed {
			copied++
		}
	}
	s.until("a sync to be half done", func() bool { return copied > 0 })
	s.w.hooks.deliver = old
}

// halfDone makes sure that the sync into a node was not done before the script went on.
func (s *script) halfDone(n *node) {
	s.stage.Helper()
	if !n.judge.sb.Marks.Has(metadata.Inconsistent) {
		s.stage.Missed("the sync into %s was done too soon", n.name)
	}
}

// slowWindow is how long a window of a slow sync takes.
const slowWindow = 500 * millisecond
