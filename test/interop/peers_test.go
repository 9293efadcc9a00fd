package interop

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	only4 = []string{service4}
	both  = []string{service4, service6}
)

// Each in turn is master, killed, stopped, frozen and preempted: within the bound
// the other has the address, and alone.
func TestUcarp(t *testing.T) {
	needNet(t, "ucarp")
	t.Parallel()
	t.Run("we are master first", func(t *testing.T) {
		t.Parallel()
		l := newLAN(t, 2, 1)
		a, b := l.hosts[0], l.hosts[1]
		ours := a.carp(t, "-preempt")
		eventually(t, 15*time.Second, "MASTER", func() bool { return ours.state() == "MASTER" && a.has(service4) })
		theirs := b.ucarp(t, "-k", "50")
		holds(t, 5*time.Second, "we stay master beside ucarp", func() bool { return ours.state() == "MASTER" && !b.has(service4) })
		if s := ours.stats(); s.Refused != ([len(s.Refused)]uint64{}) {
			t.Errorf("refused %v", s.Refused)
		}
		ours.kill()
		d := eventually(t, 12*time.Second, "ucarp takes over after a kill", func() bool { return one(only4, a, b) == b })
		t.Logf("killed: ucarp alone has the address after %v", d)
		ours = a.carp(t, "-preempt")
		d = eventually(t, 12*time.Second, "we preempt ucarp", func() bool { return one(only4, a, b) == a })
		t.Logf("preempted: we have the address after %v", d)
		ours.terminate()
		d = eventually(t, 12*time.Second, "ucarp takes over after a stop", func() bool { return one(only4, a, b) == b })
		t.Logf("stopped: ucarp has the address after %v", d)
		if d > 2*time.Second {
			t.Errorf("a stop took %v: did ucarp hear that we leave?", d)
		}
		theirs.terminate()
	})
	t.Run("ucarp is master first", func(t *testing.T) {
		t.Parallel()
		l := newLAN(t, 2, 1)
		a, b := l.hosts[0], l.hosts[1]
		theirs := b.ucarp(t, "-P")
		eventually(t, 15*time.Second, "ucarp is master", func() bool { return b.has(service4) })
		ours := a.carp(t, "-advskew", "50")
		eventually(t, 5*time.Second, "BACKUP", func() bool { return ours.state() == "BACKUP" })
		holds(t, 5*time.Second, "ucarp stays master beside us", func() bool { return ours.state() == "BACKUP" && !a.has(service4) })
		// Killed it leaves the address on its interface: we announce over it.
		theirs.kill()
		d := eventually(t, 12*time.Second, "we take over after a kill", func() bool { return a.has(service4) })
		t.Logf("killed: we have the address after %v", d)
		announcedOver(t, ours)
		b.sh("ip addr del " + service4 + "/24 dev eth0")
		theirs = b.ucarp(t, "-P")
		d = eventually(t, 12*time.Second, "ucarp preempts us", func() bool { return one(only4, a, b) == b && ours.state() == "BACKUP" })
		t.Logf("preempted: ucarp has the address after %v", d)
		theirs.signal(syscall.SIGSTOP)
		d = eventually(t, 12*time.Second, "we take over from a frozen ucarp", func() bool { return a.has(service4) && ours.state() == "MASTER" })
		t.Logf("frozen: we have the address after %v", d)
		theirs.signal(syscall.SIGCONT)
		d = eventually(t, 12*time.Second, "ucarp is master again", func() bool { return one(only4, a, b) == b && ours.state() == "BACKUP" })
		t.Logf("went on: ucarp has the address after %v", d)
		theirs.terminate()
		d = eventually(t, 12*time.Second, "we take over after a stop", func() bool { return one(only4, a, b) == a })
		t.Logf("stopped: we have the address after %v", d)
	})
}

func TestKeepalived(t *testing.T) {
	needNet(t, "keepalived")
	t.Parallel()
	t.Run("we are master first", func(t *testing.T) {
		t.Parallel()
		l := newLAN(t, 2, 1)
		a, b := l.hosts[0], l.hosts[1]
		ours := a.vrrp(t, "-priority", "200", "-preempt")
		eventually(t, 15*time.Second, "MASTER", func() bool { return ours.state() == "MASTER" && a.has(service4) && a.has(service6) })
		theirs := b.keepalived(t, 100, "")
		holds(t, 4*time.Second, "we stay master beside keepalived", func() bool { return ours.state() == "MASTER" && !b.has(service4) && !b.has(service6) })
		if s := ours.stats(); s.Refused != ([len(s.Refused)]uint64{}) {
			t.Errorf("refused %v", s.Refused)
		}
		ours.kill()
		d := eventually(t, 12*time.Second, "keepalived takes over after a kill", func() bool { return one(both, a, b) == b })
		t.Logf("killed: keepalived alone has the addresses after %v", d)
		ours = a.vrrp(t, "-priority", "200", "-preempt")
		d = eventually(t, 12*time.Second, "we preempt keepalived", func() bool { return one(both, a, b) == a })
		t.Logf("preempted: we have the addresses after %v", d)
		ours.terminate()
		d = eventually(t, 12*time.Second, "keepalived takes over after a stop", func() bool { return one(both, a, b) == b })
		t.Logf("stopped: keepalived has the addresses after %v", d)
		if d > 600*time.Millisecond {
			t.Errorf("a stop took %v: did keepalived hear that we leave?", d)
		}
		theirs.terminate()
	})
	t.Run("keepalived is master first", func(t *testing.T) {
		t.Parallel()
		l := newLAN(t, 2, 1)
		a, b := l.hosts[0], l.hosts[1]
		theirs := b.keepalived(t, 200, "")
		eventually(t, 15*time.Second, "keepalived is master", func() bool { return b.has(service4) && b.has(service6) })
		ours := a.vrrp(t, "-priority", "100")
		eventually(t, 5*time.Second, "BACKUP", func() bool { return ours.state() == "BACKUP" })
		holds(t, 4*time.Second, "keepalived stays master beside us", func() bool { return ours.state() == "BACKUP" && !a.has(service4) })
		theirs.kill()
		d := eventually(t, 12*time.Second, "we take over after a kill", func() bool { return a.has(service4) && a.has(service6) })
		t.Logf("killed: we have the addresses after %v", d)
		announcedOver(t, ours)
		b.sh("ip addr del " + service4 + "/24 dev eth0; ip addr del " + service6 + "/64 dev eth0")
		theirs = b.keepalived(t, 200, "")
		d = eventually(t, 12*time.Second, "keepalived preempts us", func() bool { return one(both, a, b) == b && ours.state() == "BACKUP" })
		t.Logf("preempted: keepalived has the addresses after %v", d)
		theirs.signal(syscall.SIGSTOP)
		d = eventually(t, 12*time.Second, "we take over from a frozen keepalived", func() bool { return a.has(service4) && ours.state() == "MASTER" })
		t.Logf("frozen: we have the addresses after %v", d)
		theirs.signal(syscall.SIGCONT)
		d = eventually(t, 12*time.Second, "keepalived is master again", func() bool { return one(both, a, b) == b && ours.state() == "BACKUP" })
		t.Logf("went on: keepalived has the addresses after %v", d)
		theirs.terminate()
		d = eventually(t, 12*time.Second, "we take over after a stop", func() bool { return one(both, a, b) == a })
		t.Logf("stopped: we have the addresses after %v", d)
	})
}

// A dead node's kernel still answers for the address: it is one of the cluster's.
func announcedOver(t *testing.T, p *process) {
	t.Helper()
	// The address is there before it was probed for.
	if _, said := within(5*time.Second, func() bool { return strings.Contains(p.output(), "announcing over it") }); !said {
		t.Error("the dead node's kernel still has the address, and nothing is said of it")
	}
}
