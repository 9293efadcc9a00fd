package interop

import (
	"strings"
	"testing"
	"time"
)

// A group may have replicas and services alone. Its nodes elect over the addresses of
// their interfaces, in the families that these have.
func TestElectionWithoutAddresses(t *testing.T) {
	needNet(t)
	t.Parallel()
	const no4 = "ip -4 addr flush dev eth0"
	const no6 = "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1"
	for name, without := range map[string][2]string{"IPv4 and IPv6": {}, "IPv4": {no6, no6}, "IPv6": {no4, no4}, "one has no IPv4": {"", no4}} {
		for proto, head := range map[string][]string{"carp": {"-advskew", "-pass", "secret"}, "vrrp": {"-priority", "-interval", "200ms"}} {
			t.Run(proto+" "+name, func(t *testing.T) {
				t.Parallel()
				l := newLAN(t, 3, 1)
				a, b := l.hosts[0], l.hosts[1]
				for i, h := range []*host{a, b} {
					if without[i] != "" {
						h.sh(without[i])
					}
				}
				rank := map[string][2]string{"carp": {"0", "100"}, "vrrp": {"200", "100"}}[proto]
				start := func(h *host, i int) *process {
					return h.start(t, "elector", append([]string{elector(t), "-proto", proto, "-if", "eth0", head[0], rank[i]}, head[1:]...)...)
				}
				w := l.hosts[2].wire(t)
				p := start(a, 0)
				eventually(t, 15*time.Second, "a master", func() bool { return p.state() == "MASTER" })
				q := start(b, 1) // not before: who is late does not preempt
				eventually(t, 15*time.Second, "one master", func() bool {
					return p.state() == "MASTER" && q.state() == "BACKUP" && q.stats().Received > 1
				})
				frames := adverts(w.record(1200*time.Millisecond, func() bool { return false }))
				if len(frames) == 0 {
					t.Error("no advert on the wire")
				}
				for _, f := range frames {
					if proto == "vrrp" && payload(f)[3] != 1 {
						t.Errorf("a packet of VRRP with %d addresses; none are believed without one", payload(f)[3])
					}
				}
				p.terminate()
				d := eventually(t, 10*time.Second, "the other follows", func() bool { return q.state() == "MASTER" })
				t.Logf("stopped: the other is master after %v", d)
				if d > 2*time.Second {
					t.Error("that is too long: did it not hear the last packet?")
				}
				for _, x := range []*process{p, q} {
					if strings.Contains(x.output(), "level=WARN") {
						t.Errorf("it complains: %s", x.output())
					}
				}
			})
		}
	}
}

// payload is what stands behind the IP header of a frame.
func payload(f []byte) []byte {
	if f[14]>>4 == 6 {
		return f[54:]
	}
	return f[14+int(f[14]&15)*4:]
}
