package beat

import (
	"errors"
	"fmt"
	"slices"
)

// Machine hears and is heard.
type Machine struct {
	cfg   Config
	now   Instant
	wall  int64
	due   Instant // when the last Step wanted the next one
	begun bool

	peers   []*peer // by id
	sendAt  Instant // the next heartbeats; of the serial line:
	lineAt  Instant
	leaving bool

	noCarrier Set // links of ours without one, by number
	era       uint64
	index     uint64
	digest    Digest
	attached  []attachment
	message   uint64 // the number of the last message sent
	pairs     []Pair // told last
}

type attachment struct {
	body   Body
	serial bool
}

// lateLeast is the share of an interval from which a late Step counts as such.
const lateLeast = 16

// New makes a machine. It speaks and listens from its first Step on.
func New(cfg Config) (*Machine, error) {
	switch {
	case cfg.Incarnation == 0:
		return nil, errors.New("heartbeats need an incarnation: a random number of this start")
	case cfg.Interval <= 0 || cfg.Trouble <= cfg.Interval || cfg.Timeout <= cfg.Trouble:
		return nil, fmt.Errorf("heartbeats: interval %s, trouble %s and timeout %s must grow in this order", seconds(cfg.Interval), seconds(cfg.Trouble), seconds(cfg.Timeout))
	case len(cfg.Peers) >= MaxNodes:
		return nil, fmt.Errorf("heartbeats: %d nodes, and %d can hear each other", len(cfg.Peers)+1, MaxNodes)
	}
	cfg.SerialInterval = max(cfg.SerialInterval, cfg.Interval)
	m := &Machine{cfg: cfg, digest: cfg.Shared.Digest()}
	seen := SetOf(cfg.Self)
	for _, p := range cfg.Peers {
		if p.ID > MaxID || seen.Has(p.ID) {
			return nil, fmt.Errorf("heartbeats: node %s: id %d is used twice or above %d", p.Name, p.ID, MaxID)
		}
		seen |= SetOf(p.ID)
		n := &peer{id: p.ID, name: p.Name}
		for _, l := range p.Links {
			if int(l) >= MaxLinks && l != Serial {
				return nil, fmt.Errorf("heartbeats: node %s: %d links, and %d can be used", p.Name, int(l)+1, MaxLinks)
			}
			n.links = append(n.links, m.newLink(l))
		}
		m.peers = append(m.peers, n)
	}
	slices.SortFunc(m.peers, func(a, b *peer) int { return int(a.id) - int(b.id) })
	return m, nil
}

func (m *Machine) newLink(id LinkID) *link {
	slower := Duration(0)
	if id == Serial {
		slower = m.cfg.SerialInterval - m.cfg.Interval
	}
	return &link{id: id, carrier: true, interval: m.cfg.Interval + slower, trouble: m.cfg.Trouble + slower, timeout: m.cfg.Timeout + slower}
}

func (m *Machine) peer(id NodeID) *peer {
	for _, p := range m.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

// Deadline is when to step the machine although nothing happened.
func (m *Machine) Deadline() (Instant, bool) {
	if !m.begun || m.leaving {
		return 0, false
	}
	at := min(m.sendAt, m.lineAt)
	for _, p := range m.peers {
		for _, l := range p.links {
			if d, ok := l.deadline(); ok {
				at = min(at, d)
			}
		}
	}
	return at, true
}

// Step takes an event and says what is to be done. After EvLeave it does nothing more.
// Packets that came before a deadline should be stepped before the tick of it.
func (m *Machine) Step(now Instant, ev Event, out []Effect) []Effect {
	m.now, m.wall = max(m.now, now), ev.Wall
	if m.leaving {
		return out
	}
	if !m.begun {
		m.begun, m.sendAt, m.lineAt = true, m.now, m.now
	} else {
		out = m.afterDelay(out)
	}
	switch ev.Kind {
	case EvPacket:
		out = m.onPacket(ev.Link, ev.Packet, out)
	case EvCarrier:
		out = m.onCarrier(ev.Link, ev.Up, out)
	case EvSend:
		out = m.onSend(&ev, out)
	case EvAttach:
		m.onAttach(&ev)
	case EvView:
		m.era, m.index = ev.Era, ev.Index
	case EvShared:
		m.cfg.Shared, m.digest = ev.Shared, ev.Shared.Digest()
		for _, p := range m.peers {
			p.asked, p.differs = Digest{}, nil
			out = m.compare(p, out)
		}
	case EvLeave:
		m.leaving = true
		return m.beats(func(*link) bool { return true }, out)
	}
	out = m.onTime(out)
	if pairs := m.Pairs(); !slices.Equal(pairs, m.pairs) {
		m.pairs = pairs
		out = append(out, Effect{Kind: EffPairs})
	}
	m.due, _ = m.Deadline()
	return out
}

// afterDelay keeps a node whose own timer was late from accusing others: a short
// delay does not count as their silence, and after a long one, in which they may have
// given up this node, everybody has the whole time-out again.
func (m *Machine) afterDelay(out []Effect) []Effect {
	late := m.now.since(m.due)
	if late < m.cfg.Interval/lateLeast {
		return out
	}
	stood := late >= m.cfg.Trouble
	for _, p := range m.peers {
		for _, l := range p.links {
			switch {
			case l.state == LinkDown: // only packets bring it up
			case stood:
				l.inAt, l.outAt, l.unheard = m.now, m.now, true
			default:
				l.inAt, l.outAt = min(l.inAt.add(late), m.now), min(l.outAt.add(late), m.now)
			}
		}
	}
	if stood {
		out = append(out, Effect{Kind: EffLate, Late: late})
	}
	return out
}

// onTime sends what is due and looks at every silence.
func (m *Machine) onTime(out []Effect) []Effect {
	net, line := m.now >= m.sendAt, m.now >= m.lineAt
	if net {
		m.sendAt = m.now.add(m.cfg.Interval)
	}
	if line {
		m.lineAt = m.now.add(m.cfg.SerialInterval)
	}
	if net || line {
		out = m.beats(func(l *link) bool { return l.id == Serial && line || l.id != Serial && net }, out)
	}
	for _, p := range m.peers {
		for _, l := range p.links {
			out = m.judge(p, l, out)
		}
		out = m.judgeNode(p, out)
		if p.duplicate && m.now >= p.duplicateTill {
			p.duplicate = false
		}
	}
	return out
}

func (m *Machine) onCarrier(id LinkID, up bool, out []Effect) []Effect {
	if int(id) >= MaxLinks || m.noCarrier.Has(NodeID(id)) == !up {
		return out
	}
	m.noCarrier ^= 1 << id
	return m.beats(func(*link) bool { return true }, out) // the others learn it at once, by another link
}

// beats sends a heartbeat over some of the links.
func (m *Machine) beats(which func(l *link) bool, out []Effect) []Effect {
	for _, p := range m.peers {
		for _, l := range p.links {
			if which(l) {
				out = m.beat(p, l, l.echo, l.echoAt, true, out)
			}
		}
	}
	return out
}

// beat sends one heartbeat that gives an echo back.
func (m *Machine) beat(p *peer, l *link, echo Echo, heard Instant, bodies bool, out []Effect) []Effect {
	b := Beat{Wall: m.wall, Era: m.era, Index: m.index, Shared: m.digest, Leaving: m.leaving, Carrier: ^uint8(m.noCarrier), Hears: m.hears()}
	var long []Body
	if bodies {
		b.Bodies, long = m.fitting(l, b.Hears)
	}
	out = m.send(p, l, Packet{Kind: KindBeat, Echo: echo, Payload: b.Append(nil)}, heard, out)
	for _, x := range long {
		out = m.pieces(p, []*link{l}, x, out)
	}
	return out
}

// fitting are the attached bodies that a heartbeat has room for; the others go as
// messages behind it.
func (m *Machine) fitting(l *link, hears []Hears) (in, behind []Body) {
	room := payloadMax - beatFixed
	if l.id == Serial {
		room = serialPiece
	}
	for _, h := range hears {
		room -= hearsSize(len(h.Links))
	}
	for _, a := range m.attached {
		switch n := bodyHead + len(a.body.Data); {
		case l.id == Serial && !a.serial:
		case n <= room && len(in) < maxBodies:
			in, room = append(in, a.body), room-n
		default:
			behind = append(behind, a.body)
		}
	}
	return in, behind
}

// send completes a packet.
func (m *Machine) send(p *peer, l *link, x Packet, heard Instant, out []Effect) []Effect {
	l.out++
	x.From, x.To, x.Link, x.Incarnation, x.Sequence, x.Sent = m.cfg.Self, p.id, l.id, m.cfg.Incarnation, l.out, m.now
	if x.Echo.Incarnation != 0 {
		x.Echo.Age = uint32(clamp(m.now.since(heard)/Microsecond, 0, 1<<32-1))
	}
	return append(out, Effect{Kind: EffSend, Node: p.id, Link: l.id, Packet: x})
}

func (m *Machine) onAttach(ev *Event) {
	m.attached = slices.DeleteFunc(m.attached, func(a attachment) bool { return a.body.Kind == ev.Body.Kind })
	if ev.Body.Data != nil && len(ev.Body.Data) <= bodyLimit(ev.OnSerial) && len(m.attached) < maxBodies {
		m.attached = append(m.attached, attachment{ev.Body, ev.OnSerial})
	}
}

func bodyLimit(serial bool) int {
	if serial {
		return MaxSerialBody
	}
	return MaxBody
}

// onSend sends a message once, over every link that is not down: whichever copy comes
// first counts.
func (m *Machine) onSend(ev *Event, out []Effect) []Effect {
	if len(ev.Body.Data) > bodyLimit(ev.OnSerial) {
		return out
	}
	for _, p := range m.peers {
		if ev.To != 0 && !ev.To.Has(p.id) {
			continue
		}
		var over []*link
		for _, l := range p.links {
			if l.state != LinkDown && (l.id != Serial || ev.OnSerial) {
				over = append(over, l)
			}
		}
		out = m.pieces(p, over, ev.Body, out)
	}
	return out
}

// pieces sends a body as one message.
func (m *Machine) pieces(p *peer, over []*link, b Body, out []Effect) []Effect {
	m.message++
	for _, l := range over {
		size := pieceMax
		if l.id == Serial {
			size = serialPiece
		}
		list := cut(b.Kind, b.Data, size)
		for i, part := range list {
			out = m.send(p, l, Packet{Kind: KindMessage, Piece: uint8(i), Pieces: uint8(len(list)), Message: m.message, Echo: l.echo, Payload: part}, l.echoAt, out)
		}
	}
	return out
}
