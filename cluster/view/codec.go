package view

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the format of messages and of the stored state. Another one is refused.
const Version = 1

// MaxMessage and MaxStored bound what is written, in bytes, and so what is read.
const (
	maxView    = 64 + MaxName + MaxNodes*10 + 1 + MaxNodes*9 + MaxResources*(MaxName+19) + MaxGroups*(MaxName+MaxState+2)
	MaxMessage = 128 + maxView
	MaxStored  = 256 + 2*maxView
)

const stateMagic = "hastview"

var crc = crc32.MakeTable(crc32.Castagnoli)

// AppendMessage writes a message.
func AppendMessage(b []byte, m *Message) []byte {
	w := writer{b}
	w.u8(Version)
	w.u8(uint8(m.Kind))
	w.u8(uint8(m.From))
	w.u64(uint64(m.Inc))
	w.u64(m.Serial)
	w.u8(uint8(m.To))
	w.u64(uint64(m.ToInc))
	w.u64(m.Seen)
	w.stamp(m.Stamp)
	switch m.Kind {
	case Hello:
		w.u64(uint64(m.Hears))
		w.u64(uint64(m.Links))
		w.u64(uint64(m.Ready))
	case Ask:
		w.round(m.Round)
		w.maybe(m.View)
	case Promise:
		w.round(m.Round)
		w.flag(m.Leaving)
		w.maybe(m.View)
		if m.View != nil {
			w.round(m.Told)
		}
	case Refuse:
		w.round(m.Round)
		w.round(m.Told)
	case Store:
		w.round(m.Round)
		w.view(m.View)
	case Stored:
		w.round(m.Round)
	case Committed:
		w.view(m.View)
	default:
		panic("view: a message of no kind")
	}
	return w.b
}

// ReadMessage reads one. It never gives what AppendMessage would not write.
func ReadMessage(b []byte) (*Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("view message of %d bytes: at most %d are possible", len(b), MaxMessage)
	}
	r := reader{b: b}
	if v := r.u8(); v != Version && r.err == nil {
		return nil, fmt.Errorf("view message of format %d: this program knows %d; update the older node", v, Version)
	}
	m := &Message{Kind: Kind(r.u8())}
	m.From, m.Inc, m.Serial = r.node(), r.inc(), r.number()
	m.To, m.ToInc, m.Seen = r.node(), Incarnation(r.u64()), r.number()
	m.Stamp = r.stamp()
	switch m.Kind {
	case Hello:
		m.Hears, m.Links, m.Ready = Set(r.u64()), Set(r.u64()), Set(r.u64())
	case Ask:
		m.Round, m.View = r.round(), r.maybe()
	case Promise:
		m.Round, m.Leaving, m.View = r.round(), r.flag(), r.maybe()
		if m.View != nil {
			m.Told = r.round()
		}
	case Refuse:
		m.Round, m.Told = r.round(), r.round()
	case Store:
		m.Round, m.View = r.round(), r.view()
	case Stored:
		m.Round = r.round()
	case Committed:
		m.View = r.view()
	default:
		r.fail("no such kind")
	}
	if (m.Kind == Ask || m.Kind == Committed) && m.View.stamp() != m.Stamp {
		r.fail("the view is not the sender's")
	}
	if m.Kind == Store && r.err == nil && m.View.Stamp.against(m.Stamp) != newer {
		r.fail("the proposal is no successor")
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("view message: %w", err)
	}
	return m, nil
}

// AppendState writes what is stored, with a checksum.
func AppendState(b []byte, s *State) []byte {
	start := len(b)
	w := writer{append(b, stateMagic...)}
	w.u8(Version)
	w.u32(0) // the checksum of what follows
	w.u8(uint8(s.Node))
	w.u64(uint64(s.Inc))
	w.u64(s.Serial)
	w.maybe(s.View)
	w.round(s.Prom)
	w.flag(s.Acc != nil)
	if s.Acc != nil {
		w.round(s.Acc.Round)
		w.view(s.Acc.View)
	}
	w.u8(uint8(len(s.Seen)))
	for _, x := range s.Seen {
		w.u8(uint8(x.Node))
		w.u64(uint64(x.Inc))
		w.u64(x.Serial)
	}
	sum := start + len(stateMagic) + 1
	binary.BigEndian.PutUint32(w.b[sum:], crc32.Checksum(w.b[sum+4:], crc))
	return w.b
}

// ErrDamaged is what ReadState says of bytes that were not written so.
var ErrDamaged = errors.New("the stored view is damaged")

// ReadState reads what was stored.
func ReadState(b []byte) (*State, error) {
	head := len(stateMagic) + 5
	switch {
	case len(b) > MaxStored || len(b) < head || string(b[:len(stateMagic)]) != stateMagic:
		return nil, fmt.Errorf("%w: it is not a file of this kind", ErrDamaged)
	case b[len(stateMagic)] != Version:
		return nil, fmt.Errorf("the stored view has format %d; this program knows %d", b[len(stateMagic)], Version)
	case binary.BigEndian.Uint32(b[head-4:]) != crc32.Checksum(b[head:], crc):
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	r := reader{b: b[head:]}
	s := &State{Node: r.node(), Inc: r.inc(), Serial: r.number(), View: r.maybe(), Prom: r.round()}
	if r.flag() {
		s.Acc = &Proposal{r.round(), r.view()}
		if r.err == nil && (s.Acc.View.Stamp.against(s.View.stamp()) != newer || s.Acc.Round.Compare(s.Prom) > 0) {
			r.fail("the stored proposal does not fit")
		}
	}
	for i := r.count(MaxNodes); i > 0; i-- {
		x := Seen{r.node(), r.inc(), r.number()}
		if n := len(s.Seen); n > 0 && s.Seen[n-1].Node >= x.Node {
			r.fail("nodes out of order")
		}
		s.Seen = append(s.Seen, x)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return s, nil
}

func (w *writer) stamp(s Stamp) {
	w.u32(s.Era)
	w.u32(s.Index)
	w.u64(uint64(s.Chain))
}

func (r *reader) stamp() Stamp {
	s := Stamp{r.u32(), r.u32(), Chain(r.u64())}
	if s.Era > maxIndex || s.Index > maxIndex || (s.Index == 0) != (s.Chain == 0) || s.Index == 0 && s.Era != 0 {
		r.fail("a generation that cannot be")
	}
	return s
}

func (w *writer) round(x Round) {
	w.u64(x.Num)
	w.u8(uint8(x.Node))
	w.u64(uint64(x.Inc))
}

func (r *reader) round() Round {
	x := Round{r.number(), r.node(), Incarnation(r.u64())}
	if (x.Num == 0) != (x.Inc == 0) || x.Num == 0 && x.Node != 0 {
		r.fail("a round that cannot be")
	}
	return x
}

func (w *writer) maybe(v *View) {
	w.flag(v != nil)
	if v != nil {
		w.view(v)
	}
}

func (r *reader) maybe() *View {
	if r.flag() {
		return r.view()
	}
	return nil
}

const (
	memberWitness = 1 << iota
	memberLeaving
)

func (w *writer) view(v *View) {
	w.stamp(v.Stamp)
	w.u8(uint8(v.Origin.How))
	w.u8(uint8(v.Origin.By))
	w.text(v.Origin.Who)
	w.u64(uint64(v.Origin.When))
	w.u8(uint8(len(v.Members)))
	for i := range v.Members {
		m := &v.Members[i]
		w.u8(uint8(m.ID))
		w.u64(uint64(m.Inc))
		var f uint8
		if m.Witness {
			f |= memberWitness
		}
		if m.Leaving {
			f |= memberLeaving
		}
		w.u8(f)
	}
	w.u8(uint8(len(v.Absent)))
	for _, a := range v.Absent {
		w.u8(uint8(a.ID))
		w.u64(uint64(a.Inc))
	}
	w.u8(uint8(len(v.Resources)))
	for i := range v.Resources {
		x := &v.Resources[i]
		w.text(x.Name)
		w.u64(uint64(x.Nodes))
		w.u64(uint64(x.InSync))
		w.u8(uint8(x.Owner))
		w.u8(x.marks())
	}
	w.u8(uint8(len(v.Groups)))
	for _, g := range v.Groups {
		w.text(g.Name)
		w.text(g.State)
	}
}

func (r *reader) view() *View {
	v := &View{Stamp: r.stamp()}
	v.Origin = Origin{How(r.u8()), r.node(), r.text(MaxName), int64(r.u64())}
	if v.Stamp.Index == 0 || v.Origin.How > OthersAreDown || (v.Origin.How == Elected) != (v.Stamp.Era == 0) {
		r.fail("a view of no era")
	}
	var data, all Set
	for i := r.count(MaxNodes); i > 0; i-- {
		m := Member{ID: r.node(), Inc: r.inc()}
		f := r.u8()
		if f > memberWitness|memberLeaving || all>>m.ID != 0 {
			r.fail("members that cannot be")
		}
		m.Witness, m.Leaving = f&memberWitness != 0, f&memberLeaving != 0
		all |= SetOf(m.ID)
		if !m.Witness {
			data |= SetOf(m.ID)
		}
		v.Members = append(v.Members, m)
	}
	if all == 0 {
		r.fail("no members")
	}
	var absent Set
	for i := r.count(MaxNodes); i > 0; i-- {
		a := Absent{r.node(), r.inc()}
		if absent>>a.ID != 0 || all.Has(a.ID) {
			r.fail("absent nodes that cannot be")
		}
		absent |= SetOf(a.ID)
		v.Absent = append(v.Absent, a)
	}
	for i := r.count(MaxResources); i > 0; i-- {
		x := Resource{Name: r.text(MaxName), Nodes: Set(r.u64()), InSync: Set(r.u64()), Owner: NodeID(r.u8())}
		if !x.mark(r.u8()) {
			r.fail("a resource with unknown marks")
		}
		n := len(v.Resources)
		switch {
		case x.Name == "" || n > 0 && v.Resources[n-1].Name >= x.Name:
			r.fail("resources out of order")
		case x.Nodes.Len() < 1 || x.Nodes.Len() > 2 || x.InSync&^x.Nodes != 0:
			r.fail("a resource on nodes that cannot be")
		case x.Owner != Nobody && !(x.InSync & data).Has(x.Owner):
			r.fail("an owner that is not in sync")
		}
		v.Resources = append(v.Resources, x)
	}
	if v.inSync()&^all != absent {
		r.fail("a node in sync that is neither member nor absent")
	}
	for i := r.count(MaxGroups); i > 0; i-- {
		g := Group{r.text(MaxName), r.text(MaxState)}
		if n := len(v.Groups); g.Name == "" || g.State == "" || n > 0 && v.Groups[n-1].Name >= g.Name {
			r.fail("groups out of order")
		}
		v.Groups = append(v.Groups, g)
	}
	return v
}

// The marks of a resource, as bits.
const (
	markForced = 1 << iota
	markHanded
)

func (r *Resource) marks() uint8 {
	var b uint8
	if r.Forced {
		b |= markForced
	}
	if r.Handed {
		b |= markHanded
	}
	return b
}

// mark takes them over, and says whether all are known.
func (r *Resource) mark(b uint8) bool {
	r.Forced, r.Handed = b&markForced != 0, b&markHanded != 0
	return b&^(markForced|markHanded) == 0
}
