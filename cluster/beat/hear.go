package beat

// onPacket judges a packet whose code is right.
func (m *Machine) onPacket(on LinkID, x *Packet, out []Effect) []Effect {
	refuse := func(f Fault) []Effect {
		return append(out, Effect{Kind: EffRefused, Node: x.From, Link: on, Fault: f})
	}
	p := m.peer(x.From)
	if p == nil || x.To != m.cfg.Self || x.Link != on {
		return refuse(FaultNode)
	}
	var l *link
	for _, y := range p.links {
		if y.id == on {
			l = y
		}
	}
	if l == nil {
		return refuse(FaultNode)
	}
	ours := x.Echo.Incarnation == m.cfg.Incarnation
	if ours && (x.Echo.Sequence > l.out || x.Echo.Sent > m.now) {
		return refuse(FaultFuture)
	}
	if x.Incarnation == p.incarnation && !l.in.see(x.Sequence) {
		return refuse(FaultReplay)
	}
	l.came = m.now
	s := p.start(x.Incarnation, m.now)
	first := s.first
	if x.Incarnation != p.incarnation {
		out = m.stranger(p, s, x.Sent, out)
	}
	echo := Echo{Incarnation: x.Incarnation, Sequence: x.Sequence, Sent: x.Sent}
	if x.Incarnation == p.incarnation && l.in.last == x.Sequence {
		l.echo, l.echoAt = echo, m.now
	}
	if !ours || m.now.since(x.Echo.Sent) > l.timeout {
		out = refuse(FaultStale)
		return m.reply(p, l, echo, out)
	}
	s.proven = max(s.proven, x.Echo.Sent)
	out, believed := m.who(p, x.Incarnation, p.incarnation, first, out)
	if !believed {
		return out
	}
	if l.in.last == 0 { // adopted just now
		l.in.see(x.Sequence)
		l.echo, l.echoAt = echo, m.now
	}
	return m.believe(p, l, x, out)
}

// believe takes a packet that proved all it has to.
func (m *Machine) believe(p *peer, l *link, x *Packet, out []Effect) []Effect {
	if p.gone {
		return out // sent before its last word, and slower
	}
	firstTime := !l.heard
	l.heard, l.unheard, l.inAt = true, false, m.now
	l.proof, l.outAt = max(l.proof, x.Echo.Sent), max(l.outAt, x.Echo.Sent)
	if firstTime {
		out = m.beat(p, l, l.echo, m.now, true, out) // so that it believes us as soon
	}
	if x.Kind == KindMessage {
		if whole, ok := l.pieces.add(x); ok && p.messages.see(x.Message) {
			out = m.judge(p, l, out)
			out = m.judgeNode(p, out) // a node is up before it says something
			out = m.deliver(p, l, Body{whole[0], whole[1:]}, out)
		}
		return out
	}
	b, ok := ParseBeat(x.Payload)
	if !ok {
		return append(out, Effect{Kind: EffRefused, Node: p.id, Link: l.id, Fault: FaultContent})
	}
	return m.onBeat(p, l, x, &b, out)
}

func (m *Machine) onBeat(p *peer, l *link, x *Packet, b *Beat, out []Effect) []Effect {
	if x.Sent >= p.lastSent { // of two links the slower one tells older things
		if b.Era != p.last.Era || b.Index != p.last.Index {
			out = append(out, Effect{Kind: EffView, Node: p.id, Era: b.Era, Index: b.Index})
		}
		p.last, p.lastSent, p.gone = *b, x.Sent, b.Leaving
		for _, y := range p.links {
			y.carrier = y.id == Serial || b.Carrier>>y.id&1 != 0
		}
		for _, h := range b.Hears {
			if h.Node == m.cfg.Self && h.Duplicate != p.reported {
				p.reported = h.Duplicate
				if h.Duplicate {
					out = append(out, Effect{Kind: EffDuplicate, Node: m.cfg.Self, Reason: p.name + " hears two hosts that send heartbeats as this node: stop one of them, or give it an id and a name of its own"})
				}
			}
		}
	}
	if p.gone {
		for _, y := range p.links {
			p.why = "it stopped"
			out = m.setLink(p, y, LinkDown, p.why, out)
			y.heard = false
		}
		return m.judgeNode(p, out)
	}
	out = m.judge(p, l, out)
	out = m.judgeNode(p, out)
	there := min(Duration(x.Echo.Age)*Microsecond, m.now.since(x.Echo.Sent))
	out = m.clock(p, b.Wall, m.now.since(x.Echo.Sent)-there, out)
	out = m.compare(p, out)
	for _, y := range b.Bodies {
		out = m.deliver(p, l, y, out)
	}
	return out
}

const (
	// maxAhead is how far wall clocks may be apart: logs of two nodes are compared.
	maxAhead = Second
	// sameAgain is what counts as the same difference as before.
	sameAgain = Second / 4
)

// clock warns of a wall clock that is off, once for each difference.
func (m *Machine) clock(p *peer, wall int64, rtt Duration, out []Effect) []Effect {
	const far = Duration(1) << 61 // about 73 years, and no overflow
	there, here := clamp(Duration(wall), -far, far), clamp(Duration(m.wall), -far, far)
	ahead := there - here + rtt/2
	off := max(ahead, -ahead)
	switch changed := max(ahead-p.ahead, p.ahead-ahead); {
	case off > maxAhead+rtt/2 && changed > maxAhead:
		p.ahead = ahead
	case off < maxAhead-sameAgain && p.ahead != 0:
		p.ahead = 0
	default:
		return out
	}
	return append(out, Effect{Kind: EffClock, Node: p.id, Differs: p.ahead})
}

// deliver hands a body on, or takes it if it is of this package.
func (m *Machine) deliver(p *peer, l *link, b Body, out []Effect) []Effect {
	switch b.Kind {
	case kindGroups:
		if groups, ok := parseGroups(b.Data); ok {
			return m.answer(p, kindKeys, m.cfg.Shared.appendKeys(m.cfg.Shared.differing(groups)), out)
		}
	case kindKeys:
		if groups, keys, ok := parseKeys(b.Data); ok {
			list := m.cfg.Shared.diff(groups, keys)
			if len(list) == 0 && p.last.Shared != m.digest {
				list = []Difference{tooMuch}
			}
			return m.differ(p, list, out)
		}
	default:
		if b.Kind >= FirstKind && b.Kind <= LastKind {
			return append(out, Effect{Kind: EffDeliver, Node: p.id, Incarnation: p.incarnation, Link: l.id, Body: b})
		}
	}
	return append(out, Effect{Kind: EffRefused, Node: p.id, Link: l.id, Fault: FaultContent})
}

// answer sends something about the configuration, which never goes over the serial
// line.
func (m *Machine) answer(p *peer, kind byte, data []byte, out []Effect) []Effect {
	return m.onSend(&Event{To: SetOf(p.id), Body: Body{kind, data}}, out)
}

// compare begins to find what differs in two configurations.
func (m *Machine) compare(p *peer, out []Effect) []Effect {
	switch {
	case p.incarnation == 0 || p.lastSent == 0:
	case p.last.Shared == m.digest:
		return m.differ(p, nil, out)
	case p.asked != p.last.Shared || m.now.since(p.askedAt) >= askAgain:
		p.asked, p.askedAt = p.last.Shared, m.now
		return m.answer(p, kindGroups, m.cfg.Shared.appendGroups(), out)
	}
	return out
}

// differ tells a difference once.
func (m *Machine) differ(p *peer, list []Difference, out []Effect) []Effect {
	same := len(list) == len(p.differs)
	for i := 0; same && i < len(list); i++ {
		same = list[i] == p.differs[i]
	}
	if same {
		return out
	}
	p.differs = list
	return append(out, Effect{Kind: EffShared, Node: p.id, Differences: list})
}
