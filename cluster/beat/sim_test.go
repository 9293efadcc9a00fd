package beat

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// Random faults: cuts of one way and of both, loss, slow packets, pauses, crashes,
// restarts, and somebody who sends what he recorded. Whatever happens, a link that
// counts as heard has passed packets both ways a moment ago; once it is quiet,
// everybody hears everybody.
func TestSim(t *testing.T) {
	runs := 40
	if n, err := strconv.Atoi(os.Getenv("BEAT_RUNS")); err == nil {
		runs = n
	}
	if testing.Short() {
		runs = 15
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, seed+1) })
	}
}

// passed is when packets of a direction came last.
type passed map[[3]uint8]Instant

func simulate(t *testing.T, seed uint64) {
	links := [][]LinkID{{0}, {0, 1}, {0, Serial}, {0, 1, Serial}}[seed%4]
	w := newWorld(t, seed, 2+int(seed/4)%3, links...)
	n := len(w.nodes)
	last, listens := passed{}, map[NodeID]Instant{}
	lost := map[[3]uint8]int{} // of 100
	var slowest Duration
	key := func(from, to NodeID, l LinkID) [3]uint8 { return [3]uint8{uint8(from), uint8(to), uint8(l)} }
	w.pass = func(from, to NodeID, l LinkID) (Duration, bool) {
		d := ms/10 + Duration(w.rnd.Int64N(int64(5*ms)))
		if w.rnd.IntN(20) == 0 {
			d += Duration(w.rnd.Int64N(int64(slowest + 1)))
		}
		return d, w.rnd.IntN(100) >= lost[key(from, to, l)]
	}
	var recorded []flight // of what arrived: a packet that was lost would be new
	w.arrived = func(f flight) {
		if !f.real {
			return
		}
		last[key(f.from, f.to, f.link)] = w.now
		if f.real = false; w.rnd.IntN(20) == 0 && len(recorded) < 300 {
			f.data = bytes.Clone(f.data)
			recorded = append(recorded, f)
		}
	}
	// What the last packet gave back may be older by an interval, and by the way there
	// and back; a node that stood still gives everybody the time-out again.
	check := func() {
		bound := 3*Second + 500*ms + 2*slowest + 50*ms
		for _, h := range w.nodes {
			if h.m == nil || h.paused || w.now.since(listens[h.id]) < bound {
				continue
			}
			for _, s := range h.m.Status(h.clock(w)) {
				for _, l := range s.Links {
					if l.State == LinkDown {
						continue
					}
					in, out := w.now.since(last[key(s.ID, h.id, l.Link)]), w.now.since(last[key(h.id, s.ID, l.Link)])
					w.expect(in <= bound && out <= bound, "%8.3f seed %d: %v from %d to %d is %v: nothing passed in for %s, out for %s",
						float64(w.now)/1e9-1000, seed, l.Link, h.id, s.ID, l.State, seconds(in), seconds(out))
				}
			}
		}
	}
	heal := func(h *host) {
		if h.m == nil {
			w.start(h)
		}
		if h.paused {
			w.resume(h)
			listens[h.id] = w.now
		}
	}
	for range 60 {
		h := w.nodes[w.rnd.IntN(n)]
		to := NodeID(w.rnd.IntN(n))
		l := links[w.rnd.IntN(len(links))]
		switch w.rnd.IntN(10) {
		case 0, 1:
			lost[key(h.id, to, l)] = 100
		case 2:
			lost[key(h.id, to, l)], lost[key(to, h.id, l)] = 100, 100
		case 3:
			lost[key(h.id, to, l)] = w.rnd.IntN(60)
		case 4, 5:
			clear(lost)
		case 6:
			slowest = Duration(w.rnd.Int64N(int64(400 * ms)))
		case 7:
			h.paused = h.m != nil
		case 8:
			h.m, h.paused = nil, false
		case 9:
			heal(h)
		}
		for range w.rnd.IntN(30) {
			if len(recorded) > 0 {
				w.arrive(recorded[w.rnd.IntN(len(recorded))])
			}
			w.run(Duration(w.rnd.Int64N(int64(200 * ms))))
			check()
		}
	}
	clear(lost)
	slowest = 0
	for _, h := range w.nodes {
		heal(h)
	}
	w.run(5 * Second)
	check()
	w.expect(w.allUp(), "seed %d: not everybody hears everybody 5 s after the last fault", seed)
	w.expect(w.said("two hosts") == 0, "seed %d: restarts are taken for two hosts", seed)
}
