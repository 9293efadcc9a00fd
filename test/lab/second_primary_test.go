package lab

import (
	"testing"
	"time"
)

// TestSecondPrimary is a resource that somebody makes primary by force where the group is
// not: it is suspended there, and not demoted; the group goes on where it is.
func TestSecondPrimary(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Group: true, LAN: true, Plain: true, Size: 16 << 20, LogLevel: "info"})
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	other := l.other(on)
	settled(t, l, on)
	lan := l.net.(*LAN)
	must(t, lan.Wall(Way{HostAlpha, HostBravo, AllLinks, true}, Way{HostBravo, HostAlpha, AllLinks, true}))
	_, err := on.Wait(downLimit, "the loss of its peer", func(s Status) bool { return s.Connection != "connected" })
	must(t, err)
	must(t, other.Role("primary", true))
	s, err := other.Wait(downLimit, "its suspension", func(s Status) bool { return s.IO.Suspended })
	must(t, err)
	if s.Role != "primary" || s.IO.Reason != "operator" {
		t.Errorf("the second primary: %v", s)
	}
	time.Sleep(time.Second)
	if s, err := other.Status(); err != nil || s.Role != "primary" || !s.IO.Suspended {
		t.Errorf("the second primary, later: %v %v", s, err)
	}
	if g, err := on.Group(); err != nil || g.State != "online" {
		t.Errorf("the rightful node: %v %v", g, err)
	}
	must(t, other.Role("secondary", false))
	if s, err := other.Status(); err != nil || s.Role != "secondary" || s.IO.Suspended {
		t.Errorf("demoted by a person: %v %v", s, err)
	}
	wantAlone(t, l, on)
}
