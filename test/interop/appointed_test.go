package interop

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"hastd/carp"
)

// With quorum on, a view names who has the addresses. Its adverts are for the eyes of
// others: what these advertise moves nothing.

// appointed starts an elector of the worst rank and appoints it.
func appointed(t *testing.T, h *host, proto string) *process {
	t.Helper()
	var p *process
	if proto == "carp" {
		p = h.carp(t, "-appointed", "-advskew", "200")
	} else {
		p = h.vrrp(t, "-appointed", "-priority", "1")
	}
	p.order("appoint")
	eventually(t, 15*time.Second, "MASTER with its addresses", func() bool {
		return p.state() == "MASTER" && h.has(service4) && (proto == "carp" || h.has(service6))
	})
	return p
}

// unmoved watches an appointed node that another master, at an address, disturbs.
func unmoved(t *testing.T, p *process, other string, addresses []string) {
	t.Helper()
	changes, before := p.changes(), p.stats()
	told := func(word string, match func(e *event) bool) func() bool {
		had := p.count(match)
		return func() bool { return p.count(match) > had+1 }
	}
	announced := told("announce", func(e *event) bool {
		return e.Event == "announce" && e.Reason == "another master advertised: "+other
	})
	heard := told("heard", func(e *event) bool { return e.Event == "heard" && e.Address == other })
	began := time.Now()
	for done := false; !done || time.Since(began) < 2*time.Second; {
		for _, a := range addresses {
			if !p.host.has(a) {
				t.Fatalf("%s has gone", a)
			}
		}
		if done = announced() && heard() && p.stats().Sent > before.Sent+2; time.Since(began) > 10*time.Second {
			t.Fatal("the other master is not reported, not announced over, or nothing more is sent")
		}
		time.Sleep(pollGap)
	}
	if p.changes() != changes || p.state() != "MASTER" || p.count(func(e *event) bool { return e.Event == "lost" }) > 0 {
		t.Errorf("%d changes of state, and it is %s", p.changes()-changes, p.state())
	}
}

// dismissed ends an appointment: a goodbye on the wire, and the addresses go.
func dismissed(t *testing.T, p *process, w *wire) {
	t.Helper()
	p.order("dismiss")
	gone := func() bool { return p.state() == "BACKUP" && !p.host.has(service4) && !p.host.has(service6) }
	frames := adverts(w.record(5*time.Second, gone))
	eventually(t, 10*time.Second, "dismissed it has no address", gone)
	bye := false
	for _, f := range append(frames, adverts(w.record(200*time.Millisecond, func() bool { return false }))...) {
		b := payload(f)
		bye = bye || bytes.Equal(f[6:12], p.host.mac("eth0")) && (b[0] == 0x21 && b[5] == 255 && b[2] == 255 || b[0] == 0x31 && b[2] == 0)
	}
	if !bye {
		t.Error("it went without a goodbye")
	}
}

func TestAppointedBesideUcarp(t *testing.T) {
	needNet(t, "ucarp")
	t.Parallel()
	l := newLAN(t, 3, 1)
	a, b := l.hosts[0], l.hosts[1]
	p := appointed(t, a, "carp")
	b.ucarp(t, "-P", "-k", "0")
	eventually(t, 15*time.Second, "ucarp thinks that it is master", func() bool { return b.has(service4) })
	unmoved(t, p, "10.9.0.2", only4)
	dismissed(t, p, l.hosts[2].wire(t))
}

func TestAppointedBesideKeepalived(t *testing.T) {
	needNet(t, "keepalived")
	t.Parallel()
	l := newLAN(t, 3, 1)
	a, b := l.hosts[0], l.hosts[1]
	p := appointed(t, a, "vrrp")
	b.keepalived(t, 255, "")
	eventually(t, 15*time.Second, "keepalived thinks that it is master", func() bool { return b.has(service4) && b.has(service6) })
	unmoved(t, p, "10.9.0.2", both)
	dismissed(t, p, l.hosts[2].wire(t))
}

// Case 9 of the cluster rules: reported, nothing moves.
func TestAppointedAgainstForgedPriority(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 3, 1)
	p := appointed(t, l.hosts[0], "vrrp")
	w := l.hosts[2].wire(t)
	x := carp.VRRPAdvert{VRID: 1, Priority: 255, Interval: 20, Addresses: []netip.Addr{serve4}}
	f := w.frame(hostC, carp.Group4, carp.TTL, x.Append(nil, hostC, carp.Group4))
	done, over := make(chan struct{}), make(chan struct{})
	defer func() { close(done); <-over }()
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				if err := w.send(f); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	unmoved(t, p, hostC.String(), both)
}

// Case 8: the only master goes away, with a word or without, and nobody takes its place
// until he is told to.
func TestNobodyIsMasterWithoutAppointment(t *testing.T) {
	needNet(t)
	t.Parallel()
	for _, proto := range []string{"carp", "vrrp"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t, 2, 1)
			a, b := l.hosts[0], l.hosts[1]
			p := appointed(t, a, proto)
			start, leave, silence := b.carp, p.kill, 4*time.Second // a master that is silent for 3 s is dead
			if proto == "vrrp" {
				start, leave, silence = b.vrrp, p.terminate, 2*time.Second // 0.6 s
			}
			q := start(t, "-appointed", "-preempt", "-priority", "254")
			eventually(t, 15*time.Second, "the other hears the master", func() bool {
				return q.state() == "BACKUP" && q.count(func(e *event) bool { return e.Event == "heard" }) > 0
			})
			q.order("take")
			leave()
			holds(t, silence, "the other does not follow", func() bool { return q.changes() == 1 && !b.has(service4) && !b.has(service6) })
			if s := q.stats(); s.Sent != 0 || q.state() != "BACKUP" {
				t.Errorf("%s, and %d adverts sent", q.state(), s.Sent)
			}
			q.order("appoint")
			d := eventually(t, 10*time.Second, "appointed it is master", func() bool { return q.state() == "MASTER" && b.has(service4) })
			t.Logf("appointed: it has the address after %v", d)
		})
	}
}
