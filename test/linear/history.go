package linear

import (
	"fmt"
	"io"
	"math"
)

// Value names the content of a sector: the number of the write that left it there.
type Value int64

const (
	// Zero is what everything holds at first, and what Zero operations leave.
	Zero Value = 0
	// Garbage is content that no write can have left in that sector.
	Garbage Value = -1
)

// Kind is what an operation does.
type Kind uint8

// The operations of a block device. TRIM counts as WriteZeroes.
const (
	Read Kind = iota + 1
	Write
	WriteZeroes
	Flush
)

func (k Kind) String() string { return [...]string{"?", "read", "write", "zero", "flush"}[k] }

// Never is the return time of an operation that was not answered, or answered
// with an error: it may have happened, or happen later, or not at all.
const Never = math.MaxInt64

// Op is one request of a client. Times are of one clock for all clients.
type Op struct {
	Client int
	Kind   Kind
	First  int64   // sector
	Count  int64   // sectors; 0 for a flush
	Value  Value   // of a write: above 0, and no other write has it
	Seen   []Value // of an answered read: by sector
	FUA    bool
	Call   int64
	Return int64 // Never: unknown
}

// Mark is something that happened at one moment.
type Mark struct {
	At   int64
	Loss bool // what was not flushed may be gone: every copy is what a medium had
	May  bool // or nothing was lost, and the copies have what they had
	Text string
}

// History is what happened to one device that was all zeroes. It is for one
// goroutine.
type History struct {
	Ops   []Op
	Marks []Mark
	end   int64
	why   string
}

// Note adds a mark for people who read the history.
func (h *History) Note(at int64, text string) { h.Marks = append(h.Marks, Mark{At: at, Text: text}) }

// MayLose adds a moment that is a Loss or nothing at all: the recorder cannot know.
func (h *History) MayLose(at int64, text string) {
	h.Marks = append(h.Marks, Mark{At: at, Loss: true, May: true, Text: text})
}

// Loss adds a moment from which what was not flushed may be gone.
func (h *History) Loss(at int64, text string) {
	h.Marks = append(h.Marks, Mark{At: at, Loss: true, Text: text})
}

// Cut ends what is judged: what was called later is left out, what was answered
// later counts as never answered. Only the first cut counts.
func (h *History) Cut(at int64, why string) {
	if h.why == "" {
		h.end, h.why = at, why
	}
}

// WasCut says whether and why the history ended early.
func (h *History) WasCut() (why string, cut bool) { return h.why, h.why != "" }

// End is the time of the cut, or Never.
func (h *History) End() int64 {
	if h.why == "" {
		return Never
	}
	return h.end
}

// judged gives the operations and losses up to the cut.
func (h *History) judged() (ops []Op, losses []Mark) {
	end := h.End()
	for _, o := range h.Ops {
		if o.Call >= end {
			continue
		}
		if o.Return >= end {
			o.Return, o.Seen = Never, nil
		}
		ops = append(ops, o)
	}
	for _, m := range h.Marks {
		if m.Loss && m.At < end {
			losses = append(losses, m)
		}
	}
	return ops, losses
}

// Text writes the history for people, one line an operation.
func (h *History) Text(w io.Writer) error {
	for _, m := range h.Marks {
		if _, err := fmt.Fprintf(w, "mark %d loss=%v may=%v %s\n", m.At, m.Loss, m.May, m.Text); err != nil {
			return err
		}
	}
	if h.why != "" {
		fmt.Fprintf(w, "cut %d %s\n", h.end, h.why)
	}
	for _, o := range h.Ops {
		ret := "never"
		if o.Return != Never {
			ret = fmt.Sprint(o.Return)
		}
		if _, err := fmt.Fprintf(w, "%d..%s client %d %v %d+%d value %d fua %v seen %v\n", o.Call, ret, o.Client, o.Kind, o.First, o.Count, o.Value, o.FUA, o.Seen); err != nil {
			return err
		}
	}
	return nil
}
