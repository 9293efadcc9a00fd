package linear

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// DefaultLimit bounds the check of one history. The search is exponential where
// many unanswered writes of a sector are under way, so a load keeps those few.
const DefaultLimit = 20 * time.Second

// Report tells what was checked.
type Report struct {
	Sectors   int // that were read
	Registers int // of them with a history of their own
	Ops       int // in all registers
	Reads     int // in all registers
	Unknown   int // writes that were not answered and seen all the same
	Losses    int
	Largest   int // operations of one register
	Took      time.Duration
}

// Refused is the error of a history that no order explains.
type Refused struct {
	Sector int64
	ops    []porcupine.Operation
	info   porcupine.LinearizationInfo
	Kept   []Op // the operations on the sector, and the flushes
}

func (r *Refused) Error() string {
	return fmt.Sprintf("linear: no order of %d operations explains what was read of sector %d", len(r.ops), r.Sector)
}

// Undecided is the error of a check that came to its limit.
type Undecided struct {
	Sector int64
	Ops    int
	Limit  time.Duration
}

func (u *Undecided) Error() string {
	return fmt.Sprintf("linear: undecided after %v at sector %d with %d operations; let the load leave fewer writes under way at once", u.Limit, u.Sector, u.Ops)
}

// Check looks for an order. The error is nil, a *Refused, an *Undecided, or says
// what is wrong with the history itself.
func Check(h *History, limit time.Duration) (Report, error) {
	began := time.Now()
	var rep Report
	if limit == 0 {
		limit = DefaultLimit
	}
	ops, losses := h.judged()
	rep.Losses = len(losses)
	if err := valid(ops); err != nil {
		return rep, err
	}
	by, flushes := spread(ops)
	sectors := make([]int64, 0, len(by))
	for s := range by {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	done := map[string]bool{}
	for _, s := range sectors {
		r := register{s, ops, by[s], flushes, losses}
		if !r.read() {
			continue
		}
		rep.Sectors++
		// The sectors of a block mostly saw the same.
		key := r.key()
		if done[key] {
			continue
		}
		done[key] = true
		list, unknown := r.operations(false)
		rep.Registers++
		rep.Ops += len(list)
		rep.Unknown += unknown
		rep.Largest = max(rep.Largest, len(list))
		for _, o := range list {
			if o.Input.(step).kind == Read {
				rep.Reads++
			}
		}
		left := limit - time.Since(began)
		if left <= 0 {
			return rep, &Undecided{s, len(list), limit}
		}
		switch porcupine.CheckOperationsTimeout(model, list, left) {
		case porcupine.Unknown:
			return rep, &Undecided{s, len(list), limit}
		case porcupine.Illegal:
			_, info := porcupine.CheckOperationsVerbose(model, list, limit)
			e := &Refused{Sector: s, ops: list, info: info}
			for _, o := range ops {
				if o.Kind == Flush || o.First <= s && s < o.First+o.Count {
					e.Kept = append(e.Kept, o)
				}
			}
			return rep, e
		}
	}
	rep.Took = time.Since(began)
	return rep, nil
}

// valid says what is wrong with a history, as a recorder may make it.
func valid(ops []Op) error {
	values := map[Value]bool{}
	for _, o := range ops {
		switch {
		case o.Return < o.Call:
			return fmt.Errorf("linear: %v of client %d returns before its call", o.Kind, o.Client)
		case o.Kind != Flush && o.Count <= 0:
			return fmt.Errorf("linear: %v of %d sectors", o.Kind, o.Count)
		case o.Kind == Read && o.Return != Never && int64(len(o.Seen)) != o.Count:
			return fmt.Errorf("linear: read of %d sectors has %d values", o.Count, len(o.Seen))
		case o.Kind == Write && (o.Value <= 0 || values[o.Value]):
			return fmt.Errorf("linear: value %d is not a write's own", o.Value)
		}
		if o.Kind == Write {
			values[o.Value] = true
		}
	}
	return nil
}

// spread sorts operations, by index, to their sectors.
func spread(ops []Op) (by map[int64][]int32, flushes []int32) {
	by = map[int64][]int32{}
	for i, o := range ops {
		switch {
		case o.Return == Never && (o.Kind == Flush || o.Kind == Read):
			// It shows nothing and promises nothing.
		case o.Kind == Flush:
			flushes = append(flushes, int32(i))
		default:
			for s := o.First; s < o.First+o.Count; s++ {
				by[s] = append(by[s], int32(i))
			}
		}
	}
	slices.SortFunc(flushes, func(a, b int32) int { return int(ops[a].Call - ops[b].Call) })
	return by, flushes
}

// register is one sector's part of a history.
type register struct {
	sector  int64
	ops     []Op
	own     []int32
	flushes []int32
	losses  []Mark
}

func (r *register) seen(o *Op) Value { return o.Seen[r.sector-o.First] }

func (r *register) read() bool {
	return slices.ContainsFunc(r.own, func(i int32) bool { return r.ops[i].Kind == Read })
}

// key is the same for registers with the same history.
func (r *register) key() string {
	var b []byte
	for _, i := range r.own {
		b = binary.AppendVarint(b, int64(i))
		if o := &r.ops[i]; o.Kind == Read {
			b = binary.AppendVarint(b, int64(r.seen(o)))
		}
	}
	return string(b)
}

// operations are what the search has to order: without writes that nobody can
// tell from never having happened, and flushes that fix nothing. Tests want all.
func (r *register) operations(all bool) (list []porcupine.Operation, unknown int) {
	seen := map[Value]bool{}
	for _, i := range r.own {
		if o := &r.ops[i]; o.Kind == Read {
			seen[r.seen(o)] = true
		}
	}
	loss := int64(-1)
	for _, m := range r.losses {
		loss = max(loss, m.At)
		list = append(list, porcupine.Operation{Input: step{soft: m.May}, Call: m.At, Return: m.At})
	}
	add := func(o *Op, x step) {
		x.last = o.Call > loss && !all
		list = append(list, porcupine.Operation{ClientId: o.Client, Input: x, Call: o.Call, Return: o.Return})
	}
	writes := []*Op{}
	for _, i := range r.own {
		o := &r.ops[i]
		switch o.Kind {
		case Read:
			add(o, step{kind: Read, seen: r.seen(o)})
		default:
			v := o.Value
			if o.Kind == WriteZeroes {
				v = Zero
			}
			if o.Return == Never {
				if !seen[v] && !all {
					continue
				}
				unknown++
			}
			writes = append(writes, o)
			add(o, step{kind: o.Kind, value: v, fixed: o.FUA && o.Return != Never})
		}
	}
	if len(r.losses) == 0 && !all {
		return list, unknown
	}
	since := int64(-1) // the call of the last flush that is kept
	for _, i := range r.flushes {
		f := &r.ops[i]
		if f.Call > loss && !all {
			break
		}
		// One that has no write between it and the last one fixes what is fixed.
		if all || slices.ContainsFunc(writes, func(w *Op) bool { return w.Call < f.Return && w.Return > since }) {
			add(f, step{kind: Flush})
			since = f.Call
		}
	}
	return list, unknown
}

// Save writes the history (history.txt), the operations on the sector that no
// order explains (refused.txt) and porcupine's picture of them (refused.html).
func Save(dir string, h *History, err error) error {
	write := func(name string, h *History) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		w := bufio.NewWriter(f)
		return errors.Join(h.Text(w), w.Flush(), f.Close())
	}
	errs := write("history.txt", h)
	if r, ok := errors.AsType[*Refused](err); ok {
		errs = errors.Join(errs, write("refused.txt", &History{Ops: r.Kept, Marks: h.Marks, end: h.end, why: h.why}),
			porcupine.VisualizePath(model, r.info, filepath.Join(dir, "refused.html")))
	}
	return errs
}
