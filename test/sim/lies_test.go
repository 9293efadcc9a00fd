package sim

import "testing"

// liar is a pair whose A wrote alone and reads what was there before while it fills B.
func liar(t *testing.T) (s *script, blocks []int) {
	t.Helper()
	s = newScript(t, func(p *Profile) { p.Lies = true })
	s.w.cover = NewCoverage()
	s.pair()
	blocks = many(60)
	s.write(s.a, blocks...)
	s.flush(s.a)
	s.a.disk.keepOld()
	s.cut()
	s.write(s.a, blocks...)
	s.a.disk.lies, s.a.disk.lieOld = 1000, true
	s.heal()
	s.complete()
	s.a.disk.lies = 0
	return s, blocks
}

// TestScenarioLieInSync: what the source's disk gave wrongly is copied, or keeps a
// block from being copied; nothing else is touched, and it ends when it is written.
func TestScenarioLieInSync(t *testing.T) {
	s, blocks := liar(t)
	c := s.w.cover.Other
	if c["fault lie-copied"] == 0 || c["fault lie-kept"] == 0 {
		t.Fatalf("no lie was copied (%d) or none kept a block (%d)", c["fault lie-copied"], c["fault lie-kept"])
	}
	n := 0
	for _, b := range blocks {
		for i := range sectorsPerBlock {
			sec := b*sectorsPerBlock + i
			x, y := s.a.disk.cur[sec], s.b.disk.cur[sec]
			if lied(y) {
				n++
			}
			if lied(x) || lied(y) != (x != y&^lieMark) {
				t.Fatalf("sector %d: A holds %#x, B %#x", sec, x, y)
			}
		}
	}
	if n == 0 || n != s.b.disk.marked() {
		t.Fatalf("%d sectors of the blocks are marked, %d altogether", n, s.b.disk.marked())
	}
	s.write(s.a, blocks...)
	s.complete()
	if s.a.disk.marked()+s.b.disk.marked() != 0 {
		t.Fatal("marks outlive the next write")
	}
}

// TestScenarioLieIsCopiedBack: B became primary and its wrong sectors are copied
// like any others; a block that is then found equal honestly is not marked.
func TestScenarioLieIsCopiedBack(t *testing.T) {
	s, blocks := liar(t)
	s.demote(s.a)
	s.promote(s.b)
	s.complete()
	wrong := s.b.disk.marked()
	s.cut()
	s.write(s.b, blocks[0])
	s.heal()
	s.complete()
	if s.a.disk.marked() > 0 || s.b.disk.marked() > wrong {
		t.Fatalf("a sync of one block marked %d sectors of A, %d of B", s.a.disk.marked(), s.b.disk.marked())
	}
	s.cut()
	s.wipeAndJoin(s.a)
	for i, v := range s.b.disk.cur {
		if v != s.a.disk.cur[i] {
			t.Fatalf("sector %d: A holds %#x after a whole copy of B's %#x", i, s.a.disk.cur[i], v)
		}
	}
}

// TestScenarioLieInAnswer: an application is told the wrong bytes, once.
func TestScenarioLieInAnswer(t *testing.T) {
	s := newScript(t, func(p *Profile) { p.Lies = true })
	s.w.cover = NewCoverage()
	s.pair()
	s.write(s.a, 4, 5)
	s.a.disk.lies = 1
	s.read(s.a, 4)
	s.read(s.a, 4)
	if got := s.w.cover.Other["fault lie-told"]; got != 1 || s.w.cover.Other["fault lie-answered"] == 0 || s.a.disk.marked() > 0 {
		t.Fatalf("%d lies were told, %d answered, %d marked", got, s.w.cover.Other["fault lie-answered"], s.a.disk.marked())
	}
	s.complete()
}

// wipeAndJoin has a node begin with a new disk.
func (s *script) wipeAndJoin(n *node) {
	s.stage.Helper()
	s.kill(n)
	s.do(func() { s.w.wipe(n) })
	s.heal()
	s.boot(n)
	s.complete()
}
