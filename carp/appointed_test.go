package carp

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// bothAppointed runs a test with either protocol, on the node of the worst rank.
func bothAppointed(t *testing.T, test func(t *testing.T, make func() *Machine)) {
	for name, m := range map[string]func(Config) *Machine{"CARP": NewCARP, "VRRP": NewVRRP} {
		t.Run(name, func(t *testing.T) {
			test(t, func() *Machine {
				return m(Config{
					Self: self, Advbase: 1, Advskew: 200, Priority: 1, Interval: Second, Appointed: true,
					StartDelay: 50 * Second, PreemptDelay: 50 * Second,
				})
			})
		})
	}
}

// better is an advert of a node of the best rank.
var better = Advert{From: other, Every: Second, Priority: 255}

func (x *trial) appoint(until Instant) *trial {
	return x.do(0, Event{Kind: EvAppoint, Up: true, Until: until})
}

// appointed is a machine that is master by appointment, a moment after its advert.
func appointed(t *testing.T, m *Machine, until Instant) *trial {
	x := started(t, m)
	x.appoint(until).is(Master)
	x.do(Millisecond, Event{Kind: EvTick}).is(Master)
	return x
}

// What an appointed node is, follows from what it was told and from its link.
func TestAppointed(t *testing.T) {
	type step struct {
		after Duration
		ev    Event
		want  State
		said  string // the transition; "" for none
		sends int    // packets, and how many of them say goodbye
		byes  int
	}
	appoint, dismiss := Event{Kind: EvAppoint, Up: true}, Event{Kind: EvAppoint, Reason: "not the owner"}
	for name, steps := range map[string][]step{
		"at once, without the delays": {
			{0, appoint, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{0, appoint, Master, "", 0, 0},
			{2 * Second, Event{Kind: EvTick}, Master, "", 1, 0},
			{0, dismiss, Backup, "MASTER -> BACKUP (not the owner)", 1, 1},
			{0, dismiss, Backup, "", 0, 0},
		},
		"nothing else makes it master": {
			{Second, Event{Kind: EvTake}, Backup, "", 0, 0},
			{0, Event{Kind: EvStanding, Fit: true}, Backup, "", 0, 0},
			{0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: 100 * Second, Priority: 1}}, Backup, "", 0, 0},
			{0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: Second, Leaving: true}}, Backup, "", 0, 0},
			{1000 * Second, Event{Kind: EvTick}, Backup, "", 0, 0},
			{1000 * Second, Event{Kind: EvTick}, Backup, "", 0, 0},
		},
		"nothing else makes it none": {
			{0, appoint, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{Millisecond, Event{Kind: EvHeard, Advert: better}, Master, "", 0, 0},
			{0, Event{Kind: EvStanding, Reason: "unfit"}, Master, "", 0, 0},
			{0, Event{Kind: EvResign, Reason: "by order"}, Master, "", 0, 0},
			{Second, Event{Kind: EvHeard, Advert: better}, Master, "", 1, 0},
		},
		"without a link it is none, and is one again": {
			{0, appoint, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{Second, Event{Kind: EvLink}, Init, "MASTER -> INIT (link down)", 0, 0},
			{Second, Event{Kind: EvTick}, Init, "", 0, 0},
			{Second, Event{Kind: EvTick}, Init, "", 0, 0},
			{Second, Event{Kind: EvTick}, Init, "", 0, 0},
			{Second, Event{Kind: EvLink, Up: true}, Master, "INIT -> MASTER (appointed)", 1, 0},
		},
		"dismissed while it had no link": {
			{0, appoint, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{Second, Event{Kind: EvLink}, Init, "MASTER -> INIT (link down)", 0, 0},
			{Second, dismiss, Init, "", 0, 0},
			{Second, Event{Kind: EvLink, Up: true}, Backup, "INIT -> BACKUP (started)", 0, 0},
		},
		"appointed while it had no link": {
			{Second, Event{Kind: EvLink}, Init, "BACKUP -> INIT (link down)", 0, 0},
			{100 * Second, appoint, Init, "", 0, 0},
			{Second, Event{Kind: EvLink, Up: true}, Master, "INIT -> MASTER (appointed)", 1, 0},
		},
		"stopped, and started again": {
			{0, appoint, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{Second, Event{Kind: EvStop}, Init, "MASTER -> INIT (stopped)", 1, 1},
			{Second, Event{Kind: EvStart}, Backup, "INIT -> BACKUP (started)", 0, 0},
		},
		"on time to the end": {
			{0, Event{Kind: EvAppoint, Up: true, Until: 1e12 + 1e9}, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{Second - 1, Event{Kind: EvTick}, Master, "", 0, 0},
			{1, Event{Kind: EvTick}, Backup, "MASTER -> BACKUP (its appointment ended)", 0, 0},
			{0, appoint, Master, "BACKUP -> MASTER (appointed)", 1, 0},
		},
		"appointed for longer": {
			{0, Event{Kind: EvAppoint, Up: true, Until: 1e12 + 6e8}, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{300 * Millisecond, Event{Kind: EvAppoint, Up: true, Until: 1e12 + 9e8}, Master, "", 0, 0},
			{600*Millisecond - 1, Event{Kind: EvTick}, Master, "", 0, 0},
			{1, Event{Kind: EvTick}, Backup, "MASTER -> BACKUP (its appointment ended)", 0, 0},
		},
		"appointed too late": {
			{Second, Event{Kind: EvAppoint, Up: true, Until: 1e12 + 1e9}, Backup, "", 0, 0},
			{Second, Event{Kind: EvTick}, Backup, "", 0, 0},
		},
		"ended while it had no link": {
			{0, Event{Kind: EvAppoint, Up: true, Until: 1e12 + 15e8}, Master, "BACKUP -> MASTER (appointed)", 1, 0},
			{Second, Event{Kind: EvLink}, Init, "MASTER -> INIT (link down)", 0, 0},
			{Second, Event{Kind: EvLink, Up: true}, Backup, "INIT -> BACKUP (started)", 0, 0},
		},
	} {
		bothAppointed(t, func(t *testing.T, make func() *Machine) {
			t.Run(name, func(t *testing.T) {
				x := started(t, make())
				x.is(Backup)
				for i, s := range steps {
					x.do(s.after, s.ev)
					byes := 0
					for _, a := range x.sent() {
						if a.Leaving {
							byes++
						}
					}
					if x.m.State() != s.want || x.reason() != s.said || len(x.sent()) != s.sends || byes != s.byes {
						t.Fatalf("step %d: %v, %q, sent %+v; want %v, %q, %d packets, %d of them goodbyes",
							i, x.m.State(), x.reason(), x.sent(), s.want, s.said, s.sends, s.byes)
					}
				}
			})
		})
	}
}

// It advertises at its own pace, whatever another master says of its own.
func TestAppointedKeepsItsPace(t *testing.T) {
	bothAppointed(t, func(t *testing.T, make func() *Machine) {
		slow := better
		slow.Every = 40 * Second
		x := started(t, make())
		x.do(0, Event{Kind: EvHeard, Advert: slow})
		x.appoint(0)
		every, sent := x.m.Every(), 0
		for range 50 {
			at, ok := x.m.Deadline()
			if !ok {
				t.Fatal("it waits for nothing")
			}
			x.do(Duration(at-x.now), Event{Kind: EvTick}).is(Master)
			sent += len(x.sent())
		}
		if took := Duration(x.now - 1e12); sent != 50 || took != 50*every {
			t.Errorf("%d packets in %d ms, want 50, one every %d ms", sent, took/Millisecond, every/Millisecond)
		}
	})
}

// However often a better master is heard, it answers once in a while: the network is to
// know where the rightful one is, and is not to be flooded.
func TestAppointedAnnouncesNowAndThen(t *testing.T) {
	bothAppointed(t, func(t *testing.T, make func() *Machine) {
		x := appointed(t, make(), 0)
		announced, sent := 0, 0
		for range 5000 {
			x.do(Millisecond, Event{Kind: EvHeard, Advert: better}).is(Master)
			sent += len(x.sent())
			for _, e := range x.out {
				if e.Kind == EffAnnounce {
					announced++
					if !strings.Contains(e.Reason, other.String()) {
						t.Error(e.Reason)
					}
				}
			}
		}
		if announced < 4 || announced > 5 || sent < announced || sent > 10 {
			t.Errorf("it announced itself %d times and sent %d packets in 5 s", announced, sent)
		}
	})
}

// Who stood still may have been replaced: not a word, of no kind, until it is told
// again. With a link or without.
func TestAppointedSleeperKeepsStill(t *testing.T) {
	bothAppointed(t, func(t *testing.T, make func() *Machine) {
		for name, ev := range map[string]Event{
			"time": {Kind: EvTick}, "an advert": {Kind: EvHeard, Advert: better}, "the end": {Kind: EvStop},
			"a dismissal": {Kind: EvAppoint}, "an old appointment": {Kind: EvAppoint, Up: true, Until: 1e12 + 1e9},
		} {
			x := appointed(t, make(), 0)
			x.do(x.m.MasterDown(), ev)
			if x.m.State() == Master || len(x.out) == 0 || len(x.sent()) != 0 {
				t.Errorf("%s after it stood still: %v, %+v", name, x.m.State(), x.out)
			}
			for _, e := range x.out {
				if e.Kind == EffAnnounce {
					t.Errorf("%s after it stood still: %+v", name, e)
				}
			}
			if r := x.reason(); !strings.HasPrefix(r, "MASTER -> BACKUP (this node stood still for ") {
				t.Errorf("%s after it stood still: %s", name, r)
			}
			if at, ok := x.m.Deadline(); ok {
				t.Errorf("it waits for %d although it is appointed no more", at)
			}
		}
		x := appointed(t, make(), 0)
		x.do(x.m.MasterDown()-2*Millisecond, Event{Kind: EvTick}).is(Master)
		x.do(x.m.MasterDown(), Event{Kind: EvTick}).is(Backup)
		x.do(100*Second, Event{Kind: EvAppoint, Up: true}).is(Master)
		if len(x.sent()) != 1 {
			t.Errorf("appointed again it sent %+v", x.sent())
		}
		x.do(Second, Event{Kind: EvLink}).is(Init)
		x.sleepless(100 * Second)
		x.do(0, Event{Kind: EvLink, Up: true}).is(Master)
		x.do(Second, Event{Kind: EvLink}).is(Init)
		x.do(100*Second, Event{Kind: EvLink, Up: true}).is(Backup)
	})
}

// Stands is the last instant at which the machine itself would still be master.
func TestStands(t *testing.T) {
	bothAppointed(t, func(t *testing.T, make func() *Machine) {
		for _, until := range []Instant{0, 1e12 + 1e9, 1e12 + 100e9} {
			x := appointed(t, make(), until)
			at := x.m.Stands()
			x.do(Duration(at-x.now)-1, Event{Kind: EvHeard, Advert: better}).is(Master)
			x = appointed(t, make(), until)
			x.do(Duration(at-x.now), Event{Kind: EvHeard, Advert: better}).is(Backup)
			if x.m.Stands() != 0 {
				t.Error("a backup stands for something")
			}
		}
	})
	x := master(t, NewCARP(Config{Self: self, Advbase: 1}))
	at := x.m.Stands()
	x.do(Duration(at-x.now)-1, Event{Kind: EvTick}).is(Master)
	x = master(t, NewCARP(Config{Self: self, Advbase: 1}))
	x.do(Duration(at-x.now), Event{Kind: EvTick}).is(Backup)
}

// At any time, whatever happens: who is not appointed is silent and no master, who is
// and has a link is one. Nothing else counts.
func TestAppointedAtRandom(t *testing.T) {
	bothAppointed(t, func(t *testing.T, make func() *Machine) {
		for seed := range uint64(500) {
			rng := rand.New(rand.NewPCG(seed, 4))
			x := &trial{t: t, m: make(), now: 1e12}
			var link, start, told bool
			var until Instant
			for i := range 300 {
				ev := Event{Kind: EventKind(1 + rng.IntN(int(EvAppoint))), Up: rng.IntN(3) > 0, Fit: rng.IntN(2) == 0, Advert: better}
				ev.Advert.Leaving = rng.IntN(4) == 0
				if rng.IntN(2) == 0 {
					ev.Until = x.now.add(Duration(rng.Int64N(int64(5 * Second))))
				}
				d := Duration(rng.Int64N(int64(3 * Second / 2)))
				slept := false
				if rng.IntN(2) == 0 { // on time, or late by not too much, or by far too much
					x.sleepless(d)
					d = 0
				} else if rng.IntN(10) == 0 {
					d, slept = x.m.MasterDown()+Duration(rng.Int64N(int64(20*Second))), true
				}
				now := x.now.add(d)
				told = told && !slept && (until == 0 || now < until)
				switch ev.Kind {
				case EvLink:
					link = ev.Up
				case EvStart:
					start = true
				case EvStop:
					start, told = false, false
				case EvAppoint:
					told, until = ev.Up && (ev.Until == 0 || now < ev.Until), ev.Until
				}
				mayBye := x.m.State() == Master && !slept
				x.do(d, ev)
				if (x.m.State() == Master) != (told && link && start) || (x.m.State() == Init) != !(link && start) {
					t.Fatalf("seed %d, step %d, %+v: %v with link %v, started %v, appointed %v", seed, i, ev, x.m.State(), link, start, told)
				}
				for _, a := range x.sent() {
					if a.Leaving && !mayBye || !a.Leaving && x.m.State() != Master {
						t.Fatalf("seed %d, step %d, %+v: as %v it sent %+v", seed, i, ev, x.m.State(), a)
					}
				}
			}
		}
	})
}
