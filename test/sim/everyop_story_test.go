package sim

import (
	"fmt"

	"hastd/metadata"
	"hastd/replicate"
)

// story is a script that anything may happen to: it goes on as far as it can and
// then leaves the pair to the operator who helps. What judges are the oracles.
type story struct {
	everyop
	w    *World
	a, b *node
}

// storyEnds is what a story that cannot go on panics with.
type storyEnds struct{ why string }

// Bounds of a story, in virtual time and events.
const (
	storyWait   = 60 * second
	storyGiveUp = 4 * second // once something was struck, for all but orders
	storyEvents = 60_000
)

func (s *story) end(format string, args ...any) { panic(storyEnds{fmt.Sprintf(format, args...)}) }

func (s *story) until(what string, cond func() bool) {
	start, limit := s.w.now, s.w.events+storyEvents
	for n := 0; !cond(); n++ {
		wait := int64(storyWait)
		if s.hit {
			wait = storyGiveUp
		}
		if s.w.now-start > wait || s.w.events > limit || !s.w.next() {
			s.end("%s did not happen; A: %s; B: %s", what, s.w.describe(s.a), s.w.describe(s.b))
		}
	}
}

func (s *story) pass(d int64) {
	done := false
	s.w.after(d, func() { done = true })
	s.until("time", func() bool { return done })
}

// order gives a command and waits for its answer, however it ends.
func (s *story) order(n *node, c replicate.Command) *replicate.Refusal {
	if n.state != running {
		s.end("%s is not running", n.name)
	}
	o, life, limit := n.command(c), n.life, s.w.events+storyEvents
	for !o.done {
		if n.life != life {
			s.end("%s died with an order", n.name)
		}
		if s.w.events > limit || !s.w.next() {
			s.end("%s is not answered", commandString(&c))
		}
		s.w.oracleCommands()
	}
	return o.answer
}

func (s *story) must(n *node, c replicate.Command) {
	if r := s.order(n, c); r != nil {
		s.end("%s: %s refused: %s (%s)", n.name, commandString(&c), r.Text, r.Hint)
	}
}

func (s *story) role(n *node, r metadata.Role, force bool) {
	s.must(n, replicate.Command{Kind: replicate.CmdRole, Role: r, Force: force})
}

func (s *story) boot(n *node) {
	if n.state == off {
		n.state = stopped
	}
	n.start()
	s.role(n, metadata.Secondary, false)
}

func (s *story) promote(n *node) { s.role(n, metadata.Primary, false) }
func (s *story) force(n *node)   { s.role(n, metadata.Primary, true) }

func (s *story) demote(n *node) {
	s.role(n, metadata.Secondary, false)
	p := s.w.peerOf(n)
	s.until("the peer to hear of the demotion", func() bool {
		return p.sess == nil || p.state != running || p.status().PeerRole != "primary" || p.status().Connection != "connected"
	})
}

// ask issues a request.
func (s *story) ask(n *node, kind replicate.Request, flags replicate.Flags, sec, cnt int) int {
	if n.state != running || n.prov != provUp {
		s.end("%s has no provider", n.name)
	}
	n.app.issue(kind, flags, sec, cnt)
	return len(s.w.ledger.reqs) - 1
}

// await waits for an answer, whatever it is.
func (s *story) await(reqs ...int) {
	for _, r := range reqs {
		s.until("an answer", func() bool { return s.w.ledger.reqs[r].done })
	}
}

func (s *story) write(n *node, blocks ...int) {
	for _, b := range blocks {
		s.await(s.ask(n, replicate.ReqWrite, 0, b*sectorsPerBlock, sectorsPerBlock))
	}
}

func (s *story) flush(n *node) { s.await(s.ask(n, replicate.ReqFlush, 0, 0, 0)) }

func (s *story) read(n *node, blocks ...int) {
	for _, b := range blocks {
		s.await(s.ask(n, replicate.ReqRead, 0, b*sectorsPerBlock, sectorsPerBlock))
	}
}

func (s *story) cut() {
	s.w.link.setCut(0, true)
	s.w.link.setCut(1, true)
	s.until("both ends notice the cut", func() bool { return s.a.sess == nil && s.b.sess == nil })
	s.pass(millisecond)
}

func (s *story) heal() {
	s.w.link.setCut(0, false)
	s.w.link.setCut(1, false)
}

func (s *story) connected() {
	s.until("a connection", func() bool {
		return s.a.state == running && s.b.state == running && s.a.status().Connection == "connected" && s.b.status().Connection == "connected"
	})
}

func (s *story) flowing() {
	s.until("data to flow", func() bool { return s.a.inFlow() && s.b.inFlow() })
}

func (s *story) complete() {
	s.until("the pair to be complete", func() bool { return s.w.complete() && s.w.still() && s.a.inFlow() })
	s.w.oracleEqual()
	s.w.oracleDirty("when complete", false)
}

func (s *story) pair() {
	s.boot(s.a)
	s.boot(s.b)
	s.connected()
	s.promote(s.a)
	s.complete()
}

// resting is a complete pair with some data on it and no primary.
func (s *story) resting() {
	s.pair()
	s.write(s.a, 1, 2, 100)
	s.flush(s.a)
	s.demote(s.a)
}

// behind: A wrote apart, B lacks it.
func (s *story) behind(blocks ...int) {
	s.pair()
	s.write(s.a, 1, 200)
	s.flush(s.a)
	s.cut()
	s.write(s.a, blocks...)
	s.flush(s.a)
}

// apart: both wrote while they were parted; B is primary.
func (s *story) apart() {
	s.behind(3, 70, 300)
	s.demote(s.a)
	s.promote(s.b)
	s.write(s.b, 3, 71, 400)
	s.flush(s.b)
	s.heal()
	s.until("both to say split-brain", func() bool {
		return s.a.status().Connection == "split-brain" && s.b.status().Connection == "split-brain"
	})
}

// spread are blocks in n extents.
func spread(n int) []int {
	var b []int
	for i := range n {
		b = append(b, i*(extentSize/metadata.BlockSize)%512+i%7)
	}
	return b
}

// tale is one scenario: what comes before the operations are counted, and after.
type tale struct {
	name    string
	memsync bool // differs in that mode
	before  func(s *story)
	then    func(s *story)
}

var tales = []tale{
	{"promote first, connected", false, func(s *story) {
		s.boot(s.a)
		s.boot(s.b)
		s.connected()
	}, func(s *story) {
		s.promote(s.a)
		s.write(s.a, 1)
		s.flush(s.a)
		s.complete()
	}},
	{"promote first, alone, then adopt", false, func(s *story) {
		s.boot(s.a)
	}, func(s *story) {
		s.force(s.a)
		s.write(s.a, 1, 90)
		s.flush(s.a)
		s.boot(s.b)
		s.complete()
	}},
	{"promote later, connected", false, (*story).resting, func(s *story) {
		s.promote(s.b)
		s.read(s.b, 1, 2)
		s.write(s.b, 2, 50)
		s.flush(s.b)
		s.complete()
	}},
	{"promote later, alone", false, func(s *story) {
		s.resting()
		s.cut()
	}, func(s *story) {
		s.promote(s.b)
		s.read(s.b, 1)
		s.write(s.b, 2)
		s.flush(s.b)
		s.heal()
		s.complete()
	}},
	{"write", true, (*story).pair, func(s *story) {
		s.write(s.a, 5)    // a new extent
		s.write(s.a, 5, 6) // known
		one, two := s.ask(s.a, replicate.ReqWrite, 0, 40, 8), s.ask(s.a, replicate.ReqWrite, 0, 43, 9)
		s.await(one, two)
		s.await(s.ask(s.a, replicate.ReqZero, 0, 48, 24))
		s.flush(s.a)
		s.await(s.ask(s.a, replicate.ReqWrite, replicate.FUA, 803, 5))
		s.read(s.a, 5, 100)
		s.flush(s.a)
		s.complete()
	}},
	{"extents leave the log", true, (*story).pair, func(s *story) {
		s.write(s.a, spread(keepdirty+3)...)
		s.flush(s.a)
		s.write(s.a, 500)
		s.flush(s.a)
		s.complete()
	}},
	{"peer lost under writes", true, func(s *story) {
		s.pair()
		s.write(s.a, 1, 2)
	}, func(s *story) {
		reqs := []int{s.ask(s.a, replicate.ReqWrite, 0, 80, 8), s.ask(s.a, replicate.ReqWrite, 0, 1600, 8), s.ask(s.a, replicate.ReqFlush, 0, 0, 0)}
		s.pass(30 * microsecond)
		s.cut()
		s.await(reqs...)
		s.write(s.a, 3, 300)
		s.flush(s.a)
		s.read(s.a, 1)
	}},
	{"peer back, a few blocks", true, func(s *story) {
		s.behind(3, 70, 300)
	}, func(s *story) {
		s.heal()
		s.flowing()
		s.write(s.a, 301)
		s.flush(s.a)
		s.complete()
	}},
	{"writes while much is copied", false, func(s *story) {
		s.behind(spread(24)...)
		s.a.hashTime, s.b.hashTime = 5*millisecond, 5*millisecond
	}, func(s *story) {
		s.heal()
		s.flowing()
		for _, b := range []int{2, 65, 129, 300} {
			s.write(s.a, b)
		}
		s.flush(s.a)
		s.read(s.a, 300)
		s.complete()
	}},
	{"a new disk is filled", false, func(s *story) {
		s.pair()
		s.write(s.a, spread(10)...)
		s.flush(s.a)
		s.b.die()
		s.w.wipe(s.b)
		s.until("A to notice", func() bool { return s.a.sess == nil })
	}, func(s *story) {
		s.boot(s.b)
		s.complete()
	}},
	{"recover", true, (*story).apart, func(s *story) {
		s.must(s.a, replicate.Command{Kind: replicate.CmdRecover})
		s.complete()
		s.write(s.b, 9)
		s.flush(s.b)
		s.complete()
	}},
	{"demote", true, func(s *story) {
		s.pair()
		s.write(s.a, 1, 90)
	}, func(s *story) {
		s.demote(s.a)
		s.promote(s.b)
		s.read(s.b, 1, 90)
		s.complete()
	}},
	{"demote alone, to init, and back", false, func(s *story) {
		s.pair()
		s.write(s.a, 1)
		s.cut()
		s.write(s.a, 90)
	}, func(s *story) {
		s.demote(s.a)
		s.role(s.a, metadata.Init, false)
		s.role(s.a, metadata.Secondary, false)
		s.heal()
		s.connected()
		s.promote(s.a)
		s.complete()
	}},
	{"takeover after a write", true, func(s *story) {
		s.pair()
		s.write(s.a, 1, 90)
		s.w.diskFault = true
		s.a.disk.failWrites = 1
	}, (*story).goOnFromPeer},
	{"takeover after a flush", true, func(s *story) {
		s.pair()
		s.write(s.a, 1, 90)
		s.w.diskFault = true
		s.a.disk.failFlushes = 1
	}, (*story).goOnFromPeer},
	{"the target is primary", false, func(s *story) {
		s.behind(3, 70, 300)
		s.demote(s.a)
		s.heal()
		s.connected()
	}, func(s *story) {
		s.promote(s.b)
		s.read(s.b, 3, 70)
		s.write(s.b, 300, 5)
		s.flush(s.b)
		s.complete()
	}},
	{"the old primary returns", true, func(s *story) {
		s.pair()
		s.write(s.a, 1, 90)
		s.ask(s.a, replicate.ReqWrite, 0, 160, 8)
		s.ask(s.a, replicate.ReqWrite, 0, 1600, 8)
		s.until("a write to reach A's disk", func() bool { return s.a.busy >= 1 })
		s.a.powerLoss()
		s.until("B to notice", func() bool { return s.b.sess == nil })
		s.promote(s.b)
		s.write(s.b, 90, 400)
	}, func(s *story) {
		s.boot(s.a)
		s.complete()
	}},
	{"the daemon returns", true, func(s *story) {
		s.pair()
		s.write(s.a, 1, 90)
		s.ask(s.a, replicate.ReqWrite, 0, 160, 8)
		s.pass(60 * microsecond)
		s.a.die()
		s.until("B to notice", func() bool { return s.b.sess == nil })
	}, func(s *story) {
		s.boot(s.a)
		s.promote(s.a)
		s.read(s.a, 1, 20)
		s.flush(s.a)
		s.complete()
	}},
	{"both wrote apart, and one returns", false, func(s *story) {
		s.behind(3, 70, 300)
		s.a.die()
		s.promote(s.b)
		s.write(s.b, 3, 71)
		s.flush(s.b)
		s.heal()
	}, func(s *story) {
		s.boot(s.a)
		s.until("both to say split-brain", func() bool {
			return s.a.status().Connection == "split-brain" && s.b.status().Connection == "split-brain"
		})
		s.must(s.a, replicate.Command{Kind: replicate.CmdRecover})
		s.complete()
	}},
	{"promoted by force in the middle of a sync", false, func(s *story) {
		s.behind(spread(24)...)
		s.a.hashTime, s.b.hashTime = 20*millisecond, 20*millisecond
		s.heal()
		s.flowing()
		s.pass(30 * millisecond)
		s.cut()
		s.demote(s.a)
	}, func(s *story) {
		s.force(s.b)
		s.write(s.b, 7)
		s.flush(s.b)
	}},
	{"disconnect and connect", false, func(s *story) {
		s.pair()
		s.write(s.a, 1, 90)
	}, func(s *story) {
		s.must(s.a, replicate.Command{Kind: replicate.CmdDisconnect})
		s.write(s.a, 2)
		s.must(s.a, replicate.Command{Kind: replicate.CmdConnect})
		s.complete()
	}},
}

// goOnFromPeer: A's disk fails at the next operation of its kind.
func (s *story) goOnFromPeer() {
	s.write(s.a, 8)
	s.flush(s.a)
	s.write(s.a, 9, 90)
	s.read(s.a, 1, 9)
	s.flush(s.a)
	s.a.disk.heal()
	s.a.app.close()
	s.role(s.a, metadata.Init, false)
	s.role(s.a, metadata.Secondary, false)
	s.connected()
	s.promote(s.b)
	s.read(s.b, 8, 90)
	s.complete()
}
