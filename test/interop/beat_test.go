package interop

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
	"hastd/cluster/beat/runner"
	"hastd/test/cable"
)

// newLinks makes hosts with so many networks, each a switch of its own.
func newLinks(t *testing.T, hosts, links int) *lan {
	t.Helper()
	l := &lan{t: t, sw: newHost(t, "switch", 0)}
	for j := range links {
		l.sw.sh(fmt.Sprintf(`ip link add br%[1]d type bridge mcast_snooping 0 stp_state 0 forward_delay 0
			ip link set br%[1]d up`, j))
	}
	for i := range hosts {
		h := newHost(t, string(rune('a'+i)), i+1)
		l.hosts = append(l.hosts, h)
		h.sh("ip link set lo up")
		for j := range links {
			l.sw.sh(fmt.Sprintf(`ip link add p%[1]d.%[2]d type veth peer name eth%[2]d netns %[3]d
				ip link set p%[1]d.%[2]d master br%[2]d up`, h.n, j, h.hold.Process.Pid))
			h.sh(fmt.Sprintf(`ip addr add 10.9.%[2]d.%[1]d/24 dev eth%[2]d
				ip addr add fd09:%[2]d::%[1]d/64 dev eth%[2]d nodad
				ip link set eth%[2]d up`, h.n, j))
		}
	}
	return l
}

// overSix are the same options with IPv6 addresses.
func overSix(list []runner.Options) []runner.Options {
	for i := range list {
		for _, n := range append([]runner.Node{list[i].Self}, list[i].Peers...) {
			for j := range n.Addresses {
				n.Addresses[j] = netip.MustParseAddr(fmt.Sprintf("fd09:%d::%d", j, n.ID+1))
			}
		}
	}
	return list
}

// beatKey is the cluster's in every test here.
const beatKey = "0123456789abcdef0123456789abcdef"

// beats are options for some hosts of a network.
func (l *lan) beats(nodes, links int) []runner.Options {
	var all []runner.Node
	for i := range nodes {
		n := runner.Node{ID: i, Name: l.hosts[i].name}
		for j := range links {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(fmt.Sprintf("10.9.%d.%d", j, i+1)))
		}
		all = append(all, n)
	}
	var list []runner.Options
	for i := range nodes {
		list = append(list, runner.Options{
			Cluster: "red", Key: []byte(beatKey), Self: all[i], Peers: slices.Delete(slices.Clone(all), i, i+1), Port: 8458,
			Interval: 200 * time.Millisecond, Trouble: time.Second, Timeout: 2 * time.Second,
			Shared: beat.Shared{"cluster.name": "red"},
		})
	}
	return list
}

// beat starts a beater.
func (h *host) beat(t *testing.T, o runner.Options) *process {
	t.Helper()
	b, err := json.Marshal(struct {
		runner.Options
		Log, Tell, Mute *int `json:",omitempty"` // in place of the options', which are no data
	}{Options: o})
	must(t, err)
	return h.start(t, "beater", program(t, "beater"), string(b))
}

// hears says whether a beater hears a node.
func (p *process) hears(node string) bool {
	up := false
	p.count(func(e *event) bool {
		if e.Event == "node" && e.Node == node {
			up = e.Up
		}
		return false
	})
	return up
}

// lost counts how often a beater lost a node.
func (p *process) lost(node string) int {
	return p.count(func(e *event) bool { return e.Event == "node" && e.Node == node && !e.Up })
}

// onLink is the last state of a link.
func (p *process) onLink(node, link string) (state, reason string) {
	p.count(func(e *event) bool {
		if e.Event == "link" && e.Node == node && e.On == link {
			state, reason = e.To, e.Reason
		}
		return false
	})
	return state, reason
}

func (p *process) jeopardy(node string) bool {
	in := false
	p.count(func(e *event) bool {
		if e.Event == "jeopardy" && e.Node == node {
			in = e.Up
		}
		return false
	})
	return in
}

func (p *process) beatStats() runner.Stats {
	p.t.Helper()
	p.stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.events) - 1; ; i-- {
		if p.events[i].Event == "stats" {
			return p.events[i].Beat
		}
	}
}

// patience is for what a loaded machine does late.
const patience = 20 * time.Second

// beatPair starts two beaters.
func beatPair(t *testing.T, l *lan, o []runner.Options) (p, q *process) {
	t.Helper()
	p, q = l.hosts[0].beat(t, o[0]), l.hosts[1].beat(t, o[1])
	eventually(t, patience, "both hear each other", func() bool { return p.hears("b") && q.hears("a") })
	return p, q
}

// filterLink drops packets of an interface on a host: "input", "output", both, or none.
func (h *host) filterLink(name string, hooks ...string) {
	h.t.Helper()
	rules := "table inet beat\ndelete table inet beat\n"
	for _, hook := range hooks {
		dir := map[string]string{"input": "iifname", "output": "oifname"}[hook]
		rules += fmt.Sprintf("table inet beat {\nchain %s {\ntype filter hook %s priority 0\n%s %q drop\n}\n}\n", hook, hook, dir, name)
	}
	h.sh("nft -f - <<'E'\n" + rules + "E")
}

// Links are cut, both ways and one way, and lose their carrier: the node stays as long
// as one is left, in jeopardy, and nobody believes a link that passes one way only.
func TestBeatLinksCut(t *testing.T) {
	needNet(t, "nft")
	t.Parallel()
	l := newLinks(t, 2, 2)
	a := l.hosts[0]
	p, q := beatPair(t, l, l.beats(2, 2))
	is := func(link, state string) func() bool {
		return func() bool {
			x, _ := p.onLink("b", link)
			y, _ := q.onLink("a", link)
			return x == state && y == state
		}
	}
	both := func() {
		t.Helper()
		eventually(t, patience, "both links are up", func() bool {
			return is("link 0", "up")() && is("link 1", "up")() && !p.jeopardy("b") && !q.jeopardy("a")
		})
	}
	both()
	for name, hooks := range map[string][]string{"both ways": {"input", "output"}, "one way in": {"input"}, "one way out": {"output"}} {
		a.filterLink("eth0", hooks...)
		eventually(t, patience, name+": link 0 is down on both nodes", is("link 0", "down"))
		eventually(t, patience, name+": both are in jeopardy", func() bool { return p.jeopardy("b") && q.jeopardy("a") })
		a.filterLink("eth0")
		both()
	}
	if n := q.count(func(e *event) bool {
		return e.Event == "link" && e.To == "trouble" && strings.HasPrefix(e.Reason, "one way: a is heard")
	}); n == 0 {
		t.Error("nobody said that a link passes one way only")
	}

	pulled := time.Now()
	l.link(a, 0, false)
	eventually(t, patience, "a lost carrier is trouble", func() bool {
		return p.count(func(e *event) bool { return e.Event == "link" && e.Reason == "no carrier here" }) > 0 &&
			q.count(func(e *event) bool { return e.Event == "link" && e.Reason == "a has no carrier" }) > 0
	})
	t.Logf("a lost carrier was known on both nodes after %v", time.Since(pulled))
	eventually(t, patience, "link 0 is down", is("link 0", "down"))
	l.link(a, 0, true)
	both()
	if p.lost("b") != 0 || q.lost("a") != 0 {
		t.Error("a node was lost although a link was left")
	}

	// Both at once: that is a node lost, not in jeopardy.
	cut := time.Now()
	a.sh(`nft add table inet beat
		nft 'add chain inet beat cut { type filter hook output priority 0; }'
		nft 'add rule inet beat cut oifname { "eth0", "eth1" } drop'`)
	eventually(t, patience, "the nodes are lost", func() bool { return !p.hears("b") && !q.hears("a") })
	t.Logf("lost on both after %v", time.Since(cut))
	if p.count(func(e *event) bool { return e.Event == "node" && e.Jeopardy }) > 0 {
		t.Error("lost in jeopardy")
	}
	a.filterLink("eth0")
	both()
}

// A process that was stopped accuses nobody when it goes on, and is believed again
// (over IPv6).
func TestBeatStoppedProcess(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLinks(t, 3, 1)
	o := overSix(l.beats(3, 1))
	p, q := beatPair(t, l, o)
	r := l.hosts[2].beat(t, o[2])
	eventually(t, patience, "c is heard", func() bool { return p.hears("c") && q.hears("c") && r.hears("a") })
	p.signal(syscall.SIGSTOP)
	eventually(t, patience, "the others lose it", func() bool { return q.lost("a") == 1 && r.lost("a") == 1 })
	p.signal(syscall.SIGCONT)
	eventually(t, patience, "it is back", func() bool { return q.hears("a") && r.hears("a") && p.hears("b") && p.hears("c") })
	holds(t, 3*time.Second, "it accuses nobody", func() bool { return p.lost("b") == 0 && p.lost("c") == 0 })
	if p.count(func(e *event) bool { return e.Event == "late" }) == 0 {
		t.Error("it does not know that it stood still")
	}
	q.kill()
	eventually(t, patience, "a death is noticed", func() bool { return p.lost("b") == 1 && r.lost("b") == 1 })
	r.terminate()
	eventually(t, time.Second, "a stop is noticed at once", func() bool { return p.lost("c") == 1 })
}

// With the networks gone the serial line keeps the membership, and carries what may go
// over it; what is broken is said at once.
func TestBeatSerialLineIsLeft(t *testing.T) {
	needNet(t, "nft")
	t.Parallel()
	c, err := cable.New(t.TempDir())
	if err != nil {
		t.Skip("no serial line: ", err)
	}
	t.Cleanup(c.Pull)
	l := newLinks(t, 2, 1)
	o := l.beats(2, 1)
	for i := range o {
		o[i].Self.Serial, o[i].Peers[0].Serial = c.Device[i], c.Device[1-i]
	}
	p, q := beatPair(t, l, o)
	eventually(t, patience, "the line is up", func() bool {
		x, _ := p.onLink("b", "serial line")
		y, _ := q.onLink("a", "serial line")
		return x == "up" && y == "up"
	})
	l.link(l.hosts[0], 0, false)
	eventually(t, patience, "the line tells", func() bool {
		return q.count(func(e *event) bool { return e.Event == "link" && e.Reason == "a has no carrier" }) > 0
	})
	eventually(t, patience, "both are in jeopardy", func() bool { return p.jeopardy("b") && q.jeopardy("a") })
	p.order("send over the line")
	eventually(t, patience, "a message comes", func() bool {
		return q.count(func(e *event) bool {
			return e.Event == "deliver" && e.Text == "over the line" && e.On == "serial line"
		}) == 1
	})
	holds(t, 3*time.Second, "they hear each other", func() bool { return p.lost("b") == 0 && q.lost("a") == 0 })
	c.Cut(true)
	eventually(t, patience, "lost in jeopardy", func() bool {
		return p.count(func(e *event) bool { return e.Event == "node" && !e.Up && e.Jeopardy }) == 1
	})
}

// Two hosts that use one node's id and addresses are said.
func TestBeatDuplicateNode(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLinks(t, 3, 1)
	o := l.beats(2, 1)
	p, _ := beatPair(t, l, o)
	l.hosts[2].sh("ip addr flush dev eth0 && ip addr add 10.9.0.2/24 dev eth0")
	l.hosts[2].beat(t, o[1])
	eventually(t, 2*patience, "a says so", func() bool { return p.count(func(e *event) bool { return e.Event == "duplicate" }) > 0 })
	eventually(t, patience, "it stands in the log", func() bool { return strings.Contains(p.output(), "duplicate node") })
}

// datagram puts a packet into UDP, IPv4 and Ethernet.
func (w *wire) datagram(to *host, src, dst netip.Addr, port uint16, payload []byte) []byte {
	b := append(slices.Clone(to.mac("eth0")), w.mac...)
	b = append(b, 0x08, 0x00)
	ip := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(28+len(payload)))
	ip = append(ip, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	udp := binary.BigEndian.AppendUint16(nil, port)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(udp, 0, 0) // no checksum
	return append(append(append(b, ip...), udp...), payload...)
}

// captureBeats gives heartbeats that a host sends, as they pass its interface.
func captureBeats(t *testing.T, w *wire, n int) (list [][]byte) {
	t.Helper()
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	must(t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	buf := make([]byte, 2048)
	eventually(t, patience, "heartbeats to record", func() bool {
		size, _, err := unix.Recvfrom(w.fd, buf, 0)
		if err == nil && size > 42 && buf[12] == 0x08 && buf[23] == unix.IPPROTO_UDP && string(buf[42:44]) == "hb" && netip.AddrFrom4([4]byte(buf[26:30])) == netip.MustParseAddr("10.9.0.2") {
			list = append(list, slices.Clone(buf[42:size]))
		}
		return len(list) >= n
	})
	return list
}

// perBeat is the processor time that a forged heartbeat may cost: an eighth of a
// processor at ten thousand a second.
const perBeat = 12500 * time.Nanosecond

// Ten thousand forged packets a second, of each kind that somebody on the network can
// make: the nodes go on hearing each other, and what it costs is bounded.
func TestBeatFlood(t *testing.T) {
	needNet(t)
	l := newLinks(t, 3, 1)
	a := l.hosts[0]
	o := l.beats(2, 1)
	for i := range o {
		o[i].Timeout = 5 * time.Second // the flood is what is tested, not a machine that stalls
	}
	p, q := beatPair(t, l, o)
	record := l.hosts[1].wire(t)
	recorded := captureBeats(t, record, 10)
	w := l.hosts[2].wire(t)
	hostA, hostB, hostC := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.3")
	wrong := beat.NewCodec("red", []byte("another key of the same length!!"))
	other := beat.NewCodec("blue", []byte(beatKey))
	incarnation := binary.BigEndian.Uint64(recorded[0][20:])
	forge := func(c *beat.Codec, from netip.Addr, incarnation uint64) (frames [][]byte) {
		for i := range uint64(256) {
			b := beat.Beat{}
			x := c.Seal(nil, &beat.Packet{From: 1, Kind: beat.KindBeat, Incarnation: incarnation, Sequence: 1<<40 + i, Payload: b.Append(nil)})
			frames = append(frames, w.datagram(a, from, hostA, 8458, x))
		}
		return frames
	}
	var again [][]byte
	for _, x := range recorded {
		again = append(again, w.datagram(a, hostB, hostA, 8458, x))
	}
	must(t, unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
	for _, x := range []struct {
		name   string
		frames [][]byte
		faults []beat.Fault
	}{
		{"of a stranger", forge(wrong, hostC, 5), []beat.Fault{beat.FaultSource}},
		{"of another cluster", forge(other, hostB, 5), []beat.Fault{beat.FaultCluster}},
		{"with a wrong key", forge(wrong, hostB, 5), []beat.Fault{beat.FaultKey, beat.FaultRate}},
		{"with a wrong key and the right incarnation", forge(wrong, hostB, incarnation), []beat.Fault{beat.FaultKey, beat.FaultRate}},
		{"recorded", again, []beat.Fault{beat.FaultReplay}},
	} {
		before, cpu := p.beatStats(), p.processor()
		const rate, d = 10000, 3 * time.Second / 2
		sent := w.flood(d, rate, x.frames...)
		used := p.processor() - cpu
		after := p.beatStats()
		var refused uint64
		for _, f := range x.faults {
			refused += after.Refused[f] - before.Refused[f]
		}
		t.Logf("%s: %d sent, %d refused, %v of processor time in %v", x.name, sent, refused, used, d)
		if refused < uint64(sent)*9/10 {
			t.Errorf("%s: %d of %d were refused as %v", x.name, refused, sent, x.faults)
		}
		if limit := time.Duration(sent)*perBeat + 100*time.Millisecond; used > limit && !raced() {
			t.Errorf("%s: %v of processor time, want %v at most", x.name, used, limit)
		}
		if p.lost("b") > 0 || q.lost("a") > 0 {
			t.Fatalf("%s: the membership did not hold", x.name)
		}
		if n := strings.Count(p.output(), "cause="+x.faults[0].String()); n > 2 {
			t.Errorf("%s: %d lines in the log", x.name, n)
		}
	}
}

// An address that moves to another interface, and an interface that comes late: the
// link is found again.
func TestBeatInterfaceComesLate(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLinks(t, 2, 2)
	a := l.hosts[0]
	a.sh("ip addr del 10.9.0.1/24 dev eth0")
	o := l.beats(2, 1)
	p, q := a.beat(t, o[0]), l.hosts[1].beat(t, o[1])
	eventually(t, patience, "it says that it cannot listen", func() bool { return strings.Contains(p.output(), "cannot listen on link 0") })
	a.sh("ip addr add 10.9.0.1/24 dev eth0")
	eventually(t, patience, "it is found", func() bool { return p.hears("b") && q.hears("a") })
	link, err := a.nl.LinkByName("eth0")
	must(t, err)
	if link.Attrs().OperState != netlink.OperUp {
		t.Error("eth0 is not up")
	}
}
