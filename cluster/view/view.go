package view

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Limits. All of them hold for whatever is decoded, too.
const (
	MaxNodes     = 8  // sets of nodes are enumerated: 2^8 at most
	MaxNodeID    = 63 // a Set is one word
	MaxResources = 64
	MaxGroups    = 64
	MaxName      = 63 // bytes of a name, and of what a person is called
	MaxState     = 64 // bytes of a group's administrative state
	maxNumber    = 1 << 62
	maxIndex     = 1 << 31
)

// NodeID is the configured id of a node.
type NodeID uint8

// Nobody owns a resource that no present node holds in full.
const Nobody NodeID = 0xff

// Set is a set of nodes.
type Set uint64

// SetOf makes a set.
func SetOf(ids ...NodeID) Set {
	var s Set
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// Has says whether a node is in the set.
func (s Set) Has(id NodeID) bool { return id <= MaxNodeID && s>>id&1 == 1 }

// Len is how many nodes the set has.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// lowest is the lowest node of a set, or Nobody.
func (s Set) lowest() NodeID {
	if s == 0 {
		return Nobody
	}
	return NodeID(bits.TrailingZeros64(uint64(s)))
}

// IDs lists the nodes in order.
func (s Set) IDs() []NodeID {
	ids := make([]NodeID, 0, s.Len())
	for ; s != 0; s &= s - 1 {
		ids = append(ids, s.lowest())
	}
	return ids
}

func (s Set) String() string {
	var t []string
	for _, id := range s.IDs() {
		t = append(t, fmt.Sprint(id))
	}
	return "{" + strings.Join(t, ",") + "}"
}

// Incarnation is one life of a node's memory. Zero means none.
type Incarnation uint64

// Chain names an era, by a number drawn where it began. Two eras of one number were
// forced apart from each other.
type Chain uint64

// Stamp is the generation of a view, with the chain it stands in. The zero Stamp is
// that of a node that knows no view.
type Stamp struct {
	Era   uint32 // raised by force only
	Index uint32 // raised by every view
	Chain Chain
}

// Number is the generation as one number: what the storage daemon compares.
func (s Stamp) Number() uint64 { return uint64(s.Era)<<32 | uint64(s.Index) }

func (s Stamp) String() string { return fmt.Sprintf("%d.%d", s.Era, s.Index) }

// order is how one view stands to another.
type order int8

const (
	older order = iota - 1
	same
	newer
	apart // of one era, in different chains
)

func (s Stamp) against(t Stamp) order {
	switch {
	case s.Era != t.Era || s.Index == 0 || t.Index == 0:
		return order(cmp.Compare(s.Number(), t.Number()))
	case s.Chain != t.Chain:
		return apart
	}
	return order(cmp.Compare(s.Index, t.Index))
}

// Member is a node of a view.
type Member struct {
	ID      NodeID
	Inc     Incarnation
	Witness bool // votes, stores nothing
	Leaving bool
}

// Absent is a node whose replica is in sync although the node is no member: all who
// are in sync were absent. Without its incarnation it could come back wiped and own.
type Absent struct {
	ID  NodeID
	Inc Incarnation
}

// Resource is who holds a resource.
type Resource struct {
	Name   string
	Nodes  Set // the one or two that have a replica
	Owner  NodeID
	InSync Set  // whose replica holds every acknowledged write
	Forced bool // a person made this view's owner one, whatever its replica lacks
	Handed bool // the owner by the view before gave it up: it had stopped serving
}

// peer is who has the other replica, or Nobody.
func (r *Resource) peer(of NodeID) NodeID { return (r.Nodes &^ SetOf(of)).lowest() }

// Group is the administrative state of a group: words that mean nothing here.
type Group struct{ Name, State string }

// How says how an era began.
type How uint8

const (
	Elected       How = iota // the first view, stored by every configured node
	Bootstrap                // the first view, by force
	OthersAreDown            // a person said so
)

func (h How) String() string { return [...]string{"elected", "bootstrap", "others-are-down"}[h] }

// Origin is who began an era, and when.
type Origin struct {
	How  How
	By   NodeID
	Who  string // the person, as the shell knows it
	When int64  // seconds since 1970, of the shell's clock; shown, never compared
}

// View is one view. It is never changed once made.
type View struct {
	Stamp     Stamp
	Origin    Origin
	Members   []Member   // by ID
	Absent    []Absent   // by ID: who is in sync of something and no member
	Resources []Resource // by name
	Groups    []Group    // by name
}

func (v *View) stamp() Stamp {
	if v == nil {
		return Stamp{}
	}
	return v.Stamp
}

// Set is who the members are.
func (v *View) Set() Set {
	var s Set
	if v != nil {
		for i := range v.Members {
			s |= SetOf(v.Members[i].ID)
		}
	}
	return s
}

// Member is a member by its id, or nil.
func (v *View) Member(id NodeID) *Member {
	if v == nil {
		return nil
	}
	for i := range v.Members {
		if v.Members[i].ID == id {
			return &v.Members[i]
		}
	}
	return nil
}

// Resource is a resource by its name, or nil.
func (v *View) Resource(name string) *Resource {
	if v == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(v.Resources, name, func(r Resource, n string) int { return cmp.Compare(r.Name, n) })
	if !ok {
		return nil
	}
	return &v.Resources[i]
}

// Group is the state of a group, or "".
func (v *View) Group(name string) string {
	if v != nil {
		for _, g := range v.Groups {
			if g.Name == name {
				return g.State
			}
		}
	}
	return ""
}

// names says whether the view lists a node in this incarnation.
func (v *View) names(id NodeID, inc Incarnation) bool {
	m := v.Member(id)
	return m != nil && m.Inc == inc
}

// InSyncAs is the incarnation that the view's in-sync sets mean a node in; 0: none.
func (v *View) InSyncAs(id NodeID) Incarnation {
	if m := v.Member(id); m != nil {
		return m.Inc
	}
	if v != nil {
		for _, a := range v.Absent {
			if a.ID == id {
				return a.Inc
			}
		}
	}
	return 0
}

// Leader breaks the tie among the members of a view: the lowest of the data members
// that are in sync of most resources, one that is not leaving if there is one. Of one
// resource that is the rule's "in the in-sync set". Of several, a member in every set
// would be too much to ask: with two resources, each in sync on another node, the
// lowest would lead although it leaves, and its peer stop with it.
func (v *View) Leader() NodeID {
	var all, best, staying Set
	most := 0
	for i := range v.Members {
		m := &v.Members[i]
		all |= SetOf(m.ID)
		if m.Witness {
			continue
		}
		n := 0
		for j := range v.Resources {
			if v.Resources[j].InSync.Has(m.ID) {
				n++
			}
		}
		if n > most {
			best, staying, most = 0, 0, n
		}
		if n == most {
			best |= SetOf(m.ID)
			if !m.Leaving {
				staying |= SetOf(m.ID)
			}
		}
	}
	for _, s := range [...]Set{staying, best} {
		if s != 0 {
			return s.lowest()
		}
	}
	return all.lowest()
}

// Quorum says whether voters, in the incarnations that the view lists, elect its
// successor.
func (v *View) Quorum(voters Set) bool { return quorum(v, voters, false) }

// quorum says whether voters suffice to elect the successor of v. Half of the members
// suffice with the leader, unless the one who counts is starting up.
func quorum(v *View, voters Set, starting bool) bool {
	all := v.Set()
	c, n := (voters & all).Len(), all.Len()
	return 2*c > n || 2*c == n && !starting && voters.Has(v.Leader())
}

func (v *View) String() string {
	if v == nil {
		return "none"
	}
	b := fmt.Appendf(nil, "%s members", v.Stamp)
	for i := range v.Members {
		m := &v.Members[i]
		b = fmt.Appendf(b, " %d/%04x", m.ID, uint16(m.Inc))
		if m.Witness {
			b = append(b, "w"...)
		}
		if m.Leaving {
			b = append(b, " (leaving)"...)
		}
	}
	for _, a := range v.Absent {
		b = fmt.Appendf(b, " (%d/%04x absent)", a.ID, uint16(a.Inc))
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		owner := "nobody"
		if r.Owner != Nobody {
			owner = fmt.Sprint(r.Owner)
		}
		b = fmt.Appendf(b, "; %s of %s, in sync %s", r.Name, owner, r.InSync)
		if r.Forced {
			b = append(b, " by force"...)
		}
	}
	for _, g := range v.Groups {
		b = fmt.Appendf(b, "; %s=%q", g.Name, g.State)
	}
	if v.Origin.How != Elected {
		b = fmt.Appendf(b, "; era by %s on %d", v.Origin.How, v.Origin.By)
	}
	return string(b)
}

// Round numbers one attempt to elect a successor. With the incarnation in it, no life
// of a node ever uses a round of another.
type Round struct {
	Num  uint64
	Node NodeID
	Inc  Incarnation
}

// Compare orders rounds.
func (r Round) Compare(s Round) int {
	return cmp.Or(cmp.Compare(r.Num, s.Num), cmp.Compare(r.Node, s.Node), cmp.Compare(r.Inc, s.Inc))
}

func (r Round) String() string { return fmt.Sprintf("%d@%d", r.Num, r.Node) }

// Proposal is a view that was proposed in a round.
type Proposal struct {
	Round Round
	View  *View
}

// higher is the proposal of the higher round; nil is the lowest.
func higher(a, b *Proposal) *Proposal {
	if a == nil || b != nil && b.Round.Compare(a.Round) > 0 {
		return b
	}
	return a
}

// Seen is the highest serial that was seen of a node.
type Seen struct {
	Node   NodeID
	Inc    Incarnation
	Serial uint64
}

// State is what a node has on stable storage.
type State struct {
	Node   NodeID
	Inc    Incarnation
	Serial uint64    // counts the changes of this state
	View   *View     // the newest committed view; nil: none yet
	Prom   Round     // for its successor: the highest round promised
	Acc    *Proposal // and the newest proposal stored
	Seen   []Seen    // of the others, by node
}
