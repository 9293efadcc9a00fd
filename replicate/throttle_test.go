package replicate

import (
	"strings"
	"testing"
)

// syncing is a linked primary with 16 windows to copy, none of them begun.
func syncing(t *testing.T, change func(c *Config)) *script {
	t.Helper()
	s := newScript(t, scriptSuper(), change)
	s.peer = side("B", 0, 0, 0)
	s.primary()
	m := s.m
	m.st.Dirty.Set(0, 16*Window)
	m.sync = syncState{phase: syncCopying, direction: toPeer, window: MaxSyncOps, steered: s.now, began: s.now, rateAt: s.now}
	return s
}

// TestSyncYieldsToTheApplication: while requests take longer than latency-target,
// fewer windows are under way; once they are quick again, or nobody asks, more.
func TestSyncYieldsToTheApplication(t *testing.T) {
	s := syncing(t, func(c *Config) { c.LatencyTarget = 20 * Millisecond })
	m := s.m
	steer := func(latency Instant, asked bool) int {
		s.now += steerEvery
		m.now, m.latency = s.now, latency
		if asked {
			m.lastReq = s.now
		}
		m.steerSync()
		return m.sync.window
	}
	for want := MaxSyncOps / 2; want >= 1; want /= 2 {
		if got := steer(50*Millisecond, true); got != want {
			t.Fatalf("%d windows while requests take 50 ms, want %d", got, want)
		}
	}
	if got := steer(50*Millisecond, true); got != 1 {
		t.Errorf("%d windows: a sync must go on, however slowly", got)
	}
	if got := steer(5*Millisecond, true); got != 2 {
		t.Errorf("%d windows although requests take 5 ms", got)
	}
	m.lastReq = 0
	if got := steer(50*Millisecond, false); got != 3 {
		t.Errorf("%d windows although nobody asks for anything", got)
	}
	for range 2 * MaxSyncOps {
		steer(0, false)
	}
	if m.sync.window != MaxSyncOps {
		t.Errorf("%d windows at most, want %d", m.sync.window, MaxSyncOps)
	}
}

// TestSyncKeepsToMaxRate: what travels stays below max-rate, with one tenth of a
// second of it and one window beyond; what is equal or zero is not counted.
func TestSyncKeepsToMaxRate(t *testing.T) {
	const rate = 1 << 20
	s := syncing(t, func(c *Config) { c.MaxRate = rate })
	m := s.m
	sent := func() int64 { return int64(m.counters.SyncSent) }
	differ := true
	run := func(d Instant) {
		for end := s.now + d; s.now < end; {
			s.tick(steerEvery)
			for len(s.open) > 0 || len(s.sent) > 0 {
				if len(s.open) > 0 {
					s.done(s.open[0].label)
					continue
				}
				msg := s.sent[0]
				s.sent = s.sent[1:]
				if msg.Kind == MsgSyncHash && differ {
					s.says(Msg{Kind: MsgSyncNeed, Seq: msg.Seq, Mask: msg.Mask})
					continue
				}
				s.reply(&msg)
			}
		}
	}
	run(2 * Second)
	if got := sent(); got > 2*rate+rate/10+WindowSize || got < rate {
		t.Errorf("%d bytes went in two seconds at %d a second", got, rate)
	}
	before := sent()
	differ = false
	run(2 * Second)
	if m.sync.running() || sent() != before {
		t.Errorf("equal blocks are held up by max-rate: %d dirty, %d bytes sent", m.st.Dirty.Count(), sent()-before)
	}
}

// A node that stood still for minutes has a second's worth to send, not less than
// nothing: the product once overflowed.
func TestSyncGoesOnAfterALongSleep(t *testing.T) {
	for _, rate := range []int64{50 << 20, 900} {
		s := syncing(t, func(c *Config) { c.MaxRate = rate })
		for _, passed := range []Instant{steerEvery, Second, 300 * Second, 24 * 3600 * Second} {
			s.m.sync.budget = 0
			s.now += passed
			s.m.now = s.now
			s.m.steerSync()
			if got, want := s.m.sync.budget, rate*int64(min(passed, Second)/Millisecond)/1000; got != want || want == 0 {
				t.Errorf("%d a second, after %v s: %d bytes may be sent, want %d", rate, passed/Second, got, want)
			}
		}
	}
}

// A cap of a few bytes a second is no order to stop.
func TestSyncAtALowRateGoesOn(t *testing.T) {
	s := syncing(t, func(c *Config) { c.MaxRate = 3 })
	s.m.sync.budget = 0
	for range 10 {
		s.now += steerEvery
		s.m.now = s.now
		s.m.steerSync()
	}
	if got := s.m.sync.budget; got < 2 || got > 3 {
		t.Errorf("after a second %d bytes may be sent, of 3", got)
	}
}

// A cap that is set while a sync runs without one counts from then on.
func TestMaxRateSetLater(t *testing.T) {
	s := syncing(t, func(c *Config) {})
	s.m.sync.budget = -(500 << 30) // what moved so far
	s.order(Command{Kind: CmdReplaceConfig, Config: &Live{MaxRate: 1 << 20}})
	s.now += Second
	s.m.now = s.now
	s.m.steerSync()
	if got := s.m.sync.budget; got <= 0 {
		t.Errorf("a second later %d bytes may be sent", got)
	}
}

// TestZeroesForWhatIsUnreadableHere: a primary that is copied to cannot read its own
// window, so it sends no hashes; the source has nothing but zeroes there, and sends no
// blocks.
func TestZeroesForWhatIsUnreadableHere(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	m := s.m
	s.silently(func() {
		m.st.Dirty.Set(0, Window)
		m.sync = syncState{phase: syncCopying, direction: fromPeer, window: 1, steered: s.now, began: s.now, rateAt: s.now}
		m.peerDisk = "uptodate"
		s.tick(steerEvery)
		s.fails("disk read", "I/O error")
		pull := s.sent[len(s.sent)-1]
		if pull.Kind != MsgSyncPull || pull.Buf != 0 {
			t.Fatalf("sent %v", pull)
		}
		s.says(Msg{Kind: MsgSyncBlocks, Seq: pull.Seq, Off: pull.Off, Mask: pull.Mask, Zeroes: pull.Mask})
		if op := s.open[len(s.open)-1]; !strings.HasPrefix(op.label, "disk write") {
			t.Fatalf("%s under way", op.label)
		}
		s.done("disk write")
	})
	if m.phase != linked || m.st.Dirty.Word(0) != 0 {
		t.Errorf("phase %v (%s), word %x", m.phase, m.wordReason, m.st.Dirty.Word(0))
	}
}
