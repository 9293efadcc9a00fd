package lab

import (
	"strings"
	"testing"
	"time"
)

// TestJeopardy is a cluster without votes whose nodes are left with one link, and lose it,
// too. Nobody can tell whether the node with the group is dead: the other one does not
// take it over by itself, but when a person says so, or when it is heard again and gives
// the group away.
func TestJeopardy(t *testing.T) {
	beside(t)
	l := newLab(t, Options{TwoLinks: true, Group: true, LAN: true, Plain: true, Size: 16 << 20, LogLevel: "info"})
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	other := l.other(on)
	settled(t, l, on)
	lan := l.net.(*LAN)
	said := func(text string) func() (bool, error) {
		return func() (bool, error) { return strings.Contains(other.VipdLog(), text), nil }
	}

	must(t, lan.Wall(Way{Host(on.Side), Host(other.Side), 1, false}, Way{Host(other.Side), Host(on.Side), 1, false}))
	must(t, poll(downLimit, said("in jeopardy")))
	must(t, lan.Plug(on.Side, false))
	must(t, poll(downLimit, said("was lost while one link was left")))
	for end := time.Now().Add(l.masterDown(other.Side) + time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if other.HasApp() || other.HasAddress() {
			t.Fatalf("%v took over from a node that may live: %s", other.Side, other.VipdLog())
		}
	}
	if g, err := other.Group(); err != nil || !strings.Contains(g.Reason, "autodisabled: ") {
		t.Errorf("%v %v", g, err)
	}
	out, errs, code := other.Hastctl("summary")
	t.Logf("%s%s", out, errs)
	if code != 0 {
		t.Errorf("summary: status %d", code)
	}
	_, errs, code = other.Hastctl("clear", GroupName)
	if code != 0 {
		t.Errorf("clear: status %d: %s", code, errs)
	}
	must(t, other.WaitGroup("online", downLimit))
	must(t, lan.Plug(on.Side, true))
	must(t, lan.Wall())
	must(t, poll(downLimit, said("the group may be taken over here again")))
}
