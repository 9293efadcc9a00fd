package lease

import (
	"slices"
	"testing"

	"hastd/cluster/view"
)

// pair is the term of two nodes of which 0 owns something and both have to agree.
func pair(number uint64) Term {
	return Term{
		Number: number, Members: []Member{{0, 1}, {1, 1}}, Owners: view.SetOf(0),
		Quorum: func(s view.Set) bool { return s.Len() == 2 },
	}
}

func node(self view.NodeID) *Machine {
	return New(Config{Self: self, Inc: 1, Lease: 3 * view.Second, Every: view.Second / 2})
}

func at(ms int64) Instant { return Instant(ms) * Instant(view.Millisecond) }

func TestLeaseBeginsWithTheRoundThatWasConfirmed(t *testing.T) {
	m := node(0)
	if got := m.Step(at(1000), Learned{Term: pair(7)}); !slices.Equal(got, []Effect{SendRenew{7, 1}}) {
		t.Fatalf("%v", got)
	}
	m.Step(at(1500), Tick{})
	if got := m.Step(at(1700), Confirm{1, 1, 7, 1}); !slices.Equal(got, []Effect{Until{at(4000)}}) || m.Until() != at(4000) {
		t.Errorf("confirmed 700 ms after it was sent: %v", got)
	}
	for what, ev := range map[string]Event{
		"an older view's": Confirm{1, 1, 6, 2}, "another incarnation's": Confirm{1, 2, 7, 2}, "a stranger's": Confirm{2, 1, 7, 2},
		"a round that never was": Confirm{1, 1, 7, 18},
	} {
		if m.Step(at(1750), ev); m.Until() != at(4000) {
			t.Errorf("%s answer counts", what)
		}
	}
	m.Step(at(4000), Tick{})
	if m.Until() != 0 {
		t.Error("the lease does not end")
	}
	// A lease that is to run out does, and is renewed again when that is over.
	m.Step(at(4600), Yield{view.SetOf(0)})
	if got := m.Step(at(5200), Tick{}); len(got) != 0 {
		t.Errorf("renewed although its end is waited for: %v", got)
	}
	if got := m.Step(at(5300), Resume{}); len(got) != 1 {
		t.Errorf("not renewed again: %v", got)
	}
}

// An owner that starts again stores nothing that takes what the life before still serves:
// it was one of those who gave the lease.
func TestOwnerThatStartsGuardsItself(t *testing.T) {
	m := node(0)
	end := at(1000) + Instant(3*view.Second+Margin(3*view.Second))
	if got := m.Step(at(1000), Learned{Term: pair(7), Stored: true}); !slices.Equal(got, []Effect{Guard{0, end}}) {
		t.Errorf("%v", got)
	}
	m = node(0)
	if m.Step(at(1000), Learned{Term: pair(7)}); m.Guarded(0) != 0 {
		t.Error("a lease of its own forbids it to hand over")
	}
}

func TestWhoAcceptedANewViewConfirmsNothingByTheOld(t *testing.T) {
	m := node(1)
	m.Step(at(1000), Learned{Term: pair(7)})
	end := at(1000) + Instant(3*view.Second+Margin(3*view.Second))
	if m.Guarded(0) != end {
		t.Errorf("the owner of a view that is learned is guarded until %d", m.Guarded(0))
	}
	if got := m.Step(at(2000), Renew{0, 1, 7, 1}); len(got) != 2 || got[1] != (SendConfirm{0, 7, 1}) || m.Guarded(0) != end+at(1000) {
		t.Errorf("%v", got)
	}
	m.Step(at(2100), Accepted{})
	if got := m.Step(at(2200), Renew{0, 1, 7, 2}); len(got) != 0 {
		t.Errorf("it accepted a newer view, and confirms: %v", got)
	}
	m.Step(at(2300), Learned{Term: pair(8)})
	if got := m.Step(at(2400), Renew{0, 1, 7, 3}); len(got) != 0 {
		t.Errorf("confirmed by an older view: %v", got)
	}
	if got := m.Step(at(2500), Renew{0, 1, 8, 4}); len(got) != 2 {
		t.Errorf("not confirmed by the newest view: %v", got)
	}
	m.Step(at(2600), Yield{view.SetOf(0)})
	if got := m.Step(at(2700), Renew{0, 1, 8, 5}); len(got) != 0 {
		t.Errorf("confirmed although its end is waited for: %v", got)
	}
}

// With a watchdog the promise is no shorter than the time in which that resets a machine.
func TestPromise(t *testing.T) {
	for _, c := range []struct{ lease, watchdog, want Duration }{
		{3 * view.Second, 0, 3650 * view.Millisecond},
		{3 * view.Second, 2 * view.Second, 3650 * view.Millisecond},
		{3 * view.Second, 10 * view.Second, 11 * view.Second},
	} {
		if got := Promise(c.lease, c.watchdog); got != c.want {
			t.Errorf("lease %d, watchdog %d: %d, want %d", c.lease, c.watchdog, got, c.want)
		}
	}
	m := New(Config{Self: 1, Inc: 7, Lease: 3 * view.Second, Watchdog: 10 * view.Second, Every: view.Second})
	term := Term{Number: 1, Members: []Member{{0, 5}, {1, 7}}, Owners: view.SetOf(0), Quorum: func(view.Set) bool { return true }}
	m.Step(100, Learned{Term: term})
	m.Step(200, Renew{From: 0, Inc: 5, Number: 1, Round: 1})
	if got := m.Guarded(0); got != 200+Instant(11*view.Second) {
		t.Errorf("guarded until %d", got)
	}
}
