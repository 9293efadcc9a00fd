package cluster

import "testing"

// A group that is an election alone, for those who follow its events, is online where
// it was elected and nowhere else.
func TestGroupWithoutParts(t *testing.T) {
	d := newDesk(t, standard())
	is := func(want State) {
		t.Helper()
		if got := d.g.State(); got != want {
			t.Errorf("the group is %v, want %v", got, want)
		}
	}
	is(Offline)
	d.tell(Event{Kind: EvElected, Master: true})
	is(Online)
	d.tell(Event{Kind: EvOrder, Order: OrderSwitch, ID: 1})
	is(Offline)
	answered := 0
	for _, e := range d.effects {
		if e.Kind == EffAnswer && e.Err == "" {
			answered++
		}
	}
	if answered != 1 {
		t.Errorf("the order was answered %d times", answered)
	}
}
