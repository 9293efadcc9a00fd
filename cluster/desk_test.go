package cluster

import (
	"strings"
	"testing"
)

// desk drives one group by hand: every action is answered as fails says, at once.
type desk struct {
	t       *testing.T
	g       *Group
	now     Instant
	fails   map[string]string // "+app": why starting it fails
	hangs   map[string]bool   // it is not answered
	does    []string          // "+app0", "-app": what was done
	effects []Effect          // all others
}

func newDesk(t *testing.T, cfg Config) *desk {
	d := &desk{t: t, g: NewGroup(cfg), now: 1, fails: map[string]string{}, hangs: map[string]bool{}}
	for i := range cfg.Parts {
		d.tell(Event{Kind: EvProbed, Part: i})
	}
	d.tell(Event{Kind: EvStanding, Fit: true, Reason: "well"})
	return d
}

// standard is a group of rum and coke, on rum.
func standard(parts ...Part) Config {
	return Config{Name: "group1", Node: "rum", Nodes: []string{"rum", "coke"}, MasterHold: 3 * Second, Parts: parts}
}

func service(name string) Part {
	return Part{Name: "group1/service/" + name, Kind: Service, UpLimit: 10 * Second, DownLimit: 10 * Second,
		Interval: 5 * Second, RestartLimit: 3, RestartReset: 60 * Second}
}

func address(name string) Part {
	return Part{Name: "group1/address/" + name, Kind: Address, UpLimit: Second, DownLimit: Second,
		OffInterval: 2 * Second, RestartLimit: 3, RestartReset: 60 * Second}
}

func (d *desk) tell(ev Event) {
	queue := []Event{ev}
	for len(queue) > 0 {
		ev, queue = queue[0], queue[1:]
		for _, e := range d.g.Step(d.now, ev, nil) {
			word := ""
			switch e.Kind {
			case EffUp:
				word = "+" + d.g.cfg.Parts[e.Part].short()
				d.does = append(d.does, word+string(rune('0'+e.Try)))
			case EffDown:
				word = "-" + d.g.cfg.Parts[e.Part].short()
				d.does = append(d.does, word)
			case EffBreak:
				queue = append(queue, Event{Kind: EvDone, Op: e.Op, Err: "killed"})
				continue
			default:
				d.effects = append(d.effects, e)
				continue
			}
			if !d.hangs[word] {
				queue = append(queue, Event{Kind: EvDone, Op: e.Op, Err: d.fails[word]})
			}
		}
	}
}

// pass lets time pass, deadline by deadline.
func (d *desk) pass(span Duration) {
	d.t.Helper()
	end := d.now.add(span)
	for n := 0; ; n++ {
		at, ok := d.g.Deadline()
		if !ok || at > end {
			break
		}
		if n > 1000 {
			d.t.Fatalf("a thousand deadlines within %d ms", span/Millisecond)
		}
		d.now = max(d.now, at)
		d.tell(Event{Kind: EvTick})
		if next, ok := d.g.Deadline(); ok && next <= d.now {
			d.t.Fatalf("the deadline stands still at %d", next)
		}
	}
	d.now = end
	d.tell(Event{Kind: EvTick})
}

// look answers the looks under way, of which there must be one.
func (d *desk) look(l Look) {
	d.t.Helper()
	all := append(d.take(EffLook), d.take(EffSeek)...)
	if len(all) == 0 {
		d.t.Fatal("nothing is looked at")
	}
	for _, e := range all {
		d.tell(Event{Kind: EvLooked, Op: e.Op, Look: l})
	}
}

// take gives the effects of a kind since it was called last.
func (d *desk) take(k EffectKind) (list []Effect) {
	var rest []Effect
	for _, e := range d.effects {
		if e.Kind == k {
			list = append(list, e)
		} else {
			rest = append(rest, e)
		}
	}
	d.effects = rest
	return list
}

func (d *desk) did(want string) {
	d.t.Helper()
	if got := strings.Join(d.does, " "); got != want {
		d.t.Errorf("it did %q, want %q", got, want)
	}
	d.does = nil
}

func (d *desk) is(want State) {
	d.t.Helper()
	if d.g.State() != want {
		d.t.Errorf("the group is %v, want %v (%s)", d.g.State(), want, d.g.Fault())
	}
}

// online elects this node.
func (d *desk) online() {
	d.t.Helper()
	d.tell(Event{Kind: EvElected, Master: true})
	d.is(Online)
	d.does, d.effects = nil, nil
}
