package view

import "fmt"

// Kind is a message's. The numbers are on the wire.
type Kind uint8

const (
	Hello     Kind = iota + 1 // whom the sender hears
	Ask                       // promise this round; with the asker's committed view
	Promise                   // with the proposal that the sender stored, if any
	Refuse                    // a higher round was promised: Told
	Store                     // store this view in this round
	Stored                    // done
	Committed                 // this view was
)

func (k Kind) String() string {
	if k < Hello || k > Committed {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return [...]string{"", "hello", "ask", "promise", "refuse", "store", "stored", "committed"}[k]
}

// Message is what nodes tell each other.
type Message struct {
	Kind   Kind
	From   NodeID
	Inc    Incarnation // the sender's
	Serial uint64      // of the sender's stored state
	To     NodeID
	ToInc  Incarnation // what the sender last saw of the receiver
	Seen   uint64
	Stamp  Stamp // the sender's committed view

	Round   Round // Ask and its answers, Store and its answers: the asker's
	Told    Round // Promise: the round of View; Refuse: the one promised
	View    *View // Ask, Committed: the sender's; Promise: what it stored; Store: the proposed
	Leaving bool  // Promise: the sender is
	Hears   Set   // Hello
	Links   Set   // Hello: those that hear the sender too
	Ready   Set   // Hello: and those that did for Rejoin
}

func (m *Message) String() string {
	s := fmt.Sprintf("%s %d→%d (knows %s)", m.Kind, m.From, m.To, m.Stamp)
	switch m.Kind {
	case Hello:
		s += fmt.Sprintf(" hears %s, links %s, ready %s", m.Hears, m.Links, m.Ready)
	case Committed:
	default:
		s += " round " + m.Round.String()
	}
	if m.Told != (Round{}) {
		s += " told " + m.Told.String()
	}
	if m.View != nil && m.Kind != Ask {
		s += ": " + m.View.String()
	}
	return s
}
