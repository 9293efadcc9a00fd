package fence

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// desk steps a machine with two parts and a watchdog of 4 s, fed each second.
type desk struct {
	t *testing.T
	m *Machine
}

func newDesk(t *testing.T, mode Mode) *desk {
	return &desk{t, New(Config{Mode: mode, Program: "vipd", Node: "alpha", Timeout: 4 * Second, Parts: []Part{{"group a", 3 * Second}, {"group b", 2 * Second}}})}
}

// want steps at an instant in milliseconds and compares the effects' names.
func (d *desk) want(ms int, ev Event, want string) []Effect {
	d.t.Helper()
	got := d.m.Step(Instant(ms)*Instant(Millisecond), ev, nil)
	var words []string
	for _, e := range got {
		words = append(words, [...]string{"", "feed", "warn", "tell", "fence", "disarm"}[e.Kind])
	}
	if s := strings.Join(words, " "); s != want {
		d.t.Errorf("at %d ms: %q, want %q", ms, s, want)
	}
	return got
}

func tick() Event        { return Event{Kind: EvTick} }
func answer(i int) Event { return Event{Kind: EvAnswered, Part: i} }

func (d *desk) state(want State) {
	d.t.Helper()
	if d.m.State() != want {
		d.t.Errorf("state %s, want %s", d.m.State(), want)
	}
}

func TestFedWhileEverythingAnswers(t *testing.T) {
	d := newDesk(t, Reset)
	d.want(1000, tick(), "feed")
	for s := 2; s < 60; s++ {
		ms := s * 1000
		d.want(ms-500, answer(0), "")
		d.want(ms-500, answer(1), "")
		if at, ok := d.m.Deadline(); !ok || at != Instant(ms)*Instant(Millisecond) {
			t.Fatalf("deadline %d, %t", at, ok)
		}
		d.want(ms, tick(), "feed")
	}
	d.want(60_000, Event{Kind: EvStopped}, "disarm")
	d.state(Disarmed)
	d.want(70_000, tick(), "")
	d.want(70_000, Event{Kind: EvStopped}, "")
	if _, ok := d.m.Deadline(); ok {
		t.Error("a disarmed watchdog has a deadline")
	}
}

func TestEachPartHasItsLimit(t *testing.T) {
	d := newDesk(t, Reset)
	d.want(0, tick(), "feed")
	d.want(1000, tick(), "feed")
	d.want(1900, answer(0), "")
	d.want(1999, tick(), "")
	got := d.want(2000, tick(), "warn")
	want := "vipd: node alpha: group b has not answered for 2s, and the watchdog is not fed any more: unless it answers, TOC within 4s to ensure data integrity"
	if got[0].Text != want {
		t.Errorf("%q", got[0].Text)
	}
	d.state(Withheld)
	for ms := 3000; ms < 30_000; ms += 1000 {
		d.want(ms, answer(0), "") // the other one does not help
	}
	// It answers before the machine was reset: as if nothing had been.
	d.want(30_000, answer(1), "tell feed")
	d.state(Fed)
	d.want(30_500, answer(0), "")
	d.want(30_999, answer(1), "")
	d.want(31_000, tick(), "feed")
	d.want(32_000, tick(), "feed")
	d.want(32_900, answer(1), "")
	d.want(33_000, tick(), "feed")
	d.want(33_500, tick(), "warn") // now the first
}

// TestLateMachineAccusesNobody: the process was stopped, and wakes before the watchdog
// bites.
func TestLateMachineAccusesNobody(t *testing.T) {
	d := newDesk(t, Reset)
	d.want(0, tick(), "feed")
	d.want(900, answer(0), "")
	d.want(900, answer(1), "")
	d.want(4500, tick(), "feed") // due at 1000, so 3500 late: they are excused for that
	d.want(5500, tick(), "feed")
	d.want(6399, tick(), "") // 900 + 3500 + 2000
	d.want(6400, tick(), "warn")
}

func TestOrderIsFinal(t *testing.T) {
	for _, c := range []struct {
		ev   Event
		want string
	}{
		{Event{Kind: EvOrder, Group: "data", Reason: "data/service/db: could\nnot be started"}, "vipd: node alpha, group data: data/service/db: could not be started: performing TOC to ensure data integrity"},
		{Event{Kind: EvOrder, Reason: "hastd could not be taken down in 20s"}, "vipd: node alpha: hastd could not be taken down in 20s: performing TOC to ensure data integrity"},
		{Event{Kind: EvLeaseEnded, Group: "data"}, "vipd: node alpha, group data: the lease is over, and it is not known to be down: performing TOC to ensure data integrity"},
	} {
		for _, before := range []State{Fed, Withheld, Disarmed} {
			d := newDesk(t, Crash)
			d.want(0, tick(), "feed")
			switch before {
			case Withheld:
				d.want(1000, tick(), "feed")
				d.want(2000, tick(), "warn")
			case Disarmed:
				d.want(2000, Event{Kind: EvStopped}, "disarm")
			}
			d.state(before)
			got := d.want(2001, c.ev, "fence")
			if len(got) != 1 || got[0].Text != c.want {
				t.Errorf("%q", got)
			}
			d.state(Fenced)
			// Nothing saves it: not answers, not an end, and it is said once.
			d.want(2002, c.ev, "")
			d.want(3000, answer(0), "")
			d.want(3000, answer(1), "")
			d.want(4000, tick(), "")
			d.want(5000, Event{Kind: EvStopped}, "")
			d.state(Fenced)
		}
	}
}

// Whatever is up at the daemon's end is the next one's, or goes down with the machine.
func TestAbandonedIsNeitherFedNorDisarmed(t *testing.T) {
	d := newDesk(t, Reset)
	d.want(1000, tick(), "feed")
	got := d.want(1500, Event{Kind: EvAbandoned}, "warn")
	if len(got) == 1 && (!strings.Contains(got[0].Text, "not everything is down") || !strings.Contains(got[0].Text, "TOC within 4s")) {
		t.Error(got[0].Text)
	}
	d.want(60_000, tick(), "")
	d.want(60_000, Event{Kind: EvStopped}, "")
	d.want(60_000, Event{Kind: EvAbandoned}, "")
}

func TestOffDoesNothing(t *testing.T) {
	d := newDesk(t, Off)
	d.want(0, tick(), "")
	d.want(9000, tick(), "")
	if _, ok := d.m.Deadline(); ok {
		t.Error("it has a deadline")
	}
	d.want(9000, Event{Kind: EvOrder, Group: "data", Reason: "x"}, "tell")
	d.want(9000, Event{Kind: EvLeaseEnded, Group: "data"}, "tell")
	d.want(9000, Event{Kind: EvAbandoned}, "")
	d.want(9000, Event{Kind: EvStopped}, "")
	d.state(Idle)
}

func TestWordsAreBounded(t *testing.T) {
	w := Words("hastd", "alpha", "data", strings.Repeat("ä", 5000)+"\xff\n")
	if len(w) > 600 || !strings.HasSuffix(w, " ...: performing TOC to ensure data integrity") || strings.ContainsRune(w, '\ufffd') {
		t.Errorf("%d bytes: %s", len(w), w)
	}
	if w := Words("hastd", "alpha", "", "a\xffb\n\x00c"); !utf8.ValidString(w) || strings.Contains(w, "\n") {
		t.Errorf("%q", w)
	}
}

// TestWatchdogIsFedInTimeOrNever plays at random: called when it wants to be, the
// machine feeds before the watchdog's time is over while all answer, and never while
// one has been silent for longer than its limit, after an order, or after the end.
func TestWatchdogIsFedInTimeOrNever(t *testing.T) {
	fed, withheld := 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDesk(t, Reset)
		now, lastFed, heard, over := Instant(0), Instant(0), [2]Instant{}, false
		hung := [2]bool{}
		for range 400 {
			ev := tick()
			switch k := r.IntN(40); {
			case k < 30:
				i := r.IntN(2)
				if !hung[i] {
					ev = answer(i)
				}
			case k < 32:
				hung[r.IntN(2)] = r.IntN(3) == 0
			case k == 32 && r.IntN(20) == 0:
				ev = Event{Kind: EvOrder, Reason: "r"}
			case k == 33 && r.IntN(20) == 0:
				ev = Event{Kind: EvStopped}
			case k == 34 && r.IntN(20) == 0:
				ev = Event{Kind: EvAbandoned}
			}
			before := d.m.State()
			if ev.Kind == EvAnswered {
				heard[ev.Part] = now
			}
			for _, e := range d.m.Step(now, ev, nil) {
				if e.Kind != EffFeed {
					continue
				}
				fed++
				if over || now-heard[0] >= Instant(3*Second) || now-heard[1] >= Instant(2*Second) {
					t.Fatalf("seed %d: fed at %d although it must not be (%s before)", seed, now, before)
				}
				lastFed = now
			}
			over = over || ev.Kind == EvOrder || ev.Kind == EvStopped || ev.Kind == EvAbandoned
			switch d.m.State() {
			case Fed:
				if now-lastFed > Instant(4*Second)/2 {
					t.Fatalf("seed %d: fed, and not since %s", seed, seconds(Duration(now-lastFed)))
				}
			case Withheld:
				withheld++
			}
			next := now + Instant(r.Int64N(int64(300*Millisecond)))
			if at, ok := d.m.Deadline(); ok {
				next = min(next, max(at, now))
			}
			now = next
		}
	}
	if fed < 1000 || withheld < 100 {
		t.Errorf("nothing was shown: %d feeds, %d steps without", fed, withheld)
	}
}

func ExampleWords() {
	fmt.Println(Words("vipd", "rum", "group1", "group1/service/app: it is offline"))
	// Output: vipd: node rum, group group1: group1/service/app: it is offline: performing TOC to ensure data integrity
}
