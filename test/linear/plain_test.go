package linear

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// eager is one sector written down as plainly as possible: a loss picks at once
// what it leaves, and nothing is left out of the history.
var eager = porcupine.NondeterministicModel{
	Init: func() []any { return []any{fixed(Zero, false)} },
	Step: func(in, x, _ any) []any {
		s, o := in.(state), x.(step)
		switch o.kind {
		case 0:
			var out []any
			if o.soft {
				out = append(out, s)
			}
			for _, v := range s.back {
				out = append(out, fixed(v, false))
			}
			return out
		case Read:
			if s.cur != o.seen {
				return nil
			}
			return []any{s}
		case Flush:
			return []any{fixed(s.cur, false)}
		}
		next := state{cur: o.value, back: []Value{o.value}}
		for _, v := range s.back {
			if !o.fixed {
				next.back = insert(next.back, v)
			}
		}
		return []any{next}
	},
	Equal: func(a, b any) bool { return a.(state).equal(b.(state)) },
}

// random makes a history of one sector that may or may not be possible: reads
// show what some write left, mostly the last.
func random(rng *rand.Rand) *History {
	h := &History{}
	now, last := int64(1), Zero
	for i := range 4 + rng.IntN(9) {
		now += 2
		o := Op{Client: i, Count: 1, Call: now, Return: now + 1 + rng.Int64N(6)}
		switch x := rng.IntN(20); {
		case x < 7:
			o.Kind, o.Value, o.FUA = Write, Value(i+1), rng.IntN(5) == 0
			last = o.Value
		case x < 8:
			o.Kind = WriteZeroes
		case x < 14:
			o.Kind, o.Seen = Read, []Value{last}
			if rng.IntN(3) == 0 {
				o.Seen[0] = Value(rng.IntN(i + 1))
			}
		case x < 17:
			o.Kind, o.Count = Flush, 0
		default:
			if rng.IntN(2) == 0 {
				h.Loss(now, "")
			} else {
				h.MayLose(now, "")
			}
			continue
		}
		if o.Kind != Read && rng.IntN(4) == 0 {
			o.Return = Never
		}
		h.Ops = append(h.Ops, o)
	}
	return h
}

// TestAsPlainly: what the search is spared decides nothing.
func TestAsPlainly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	plain := eager.ToModel()
	verdicts := map[bool]int{}
	for range 6000 {
		h := random(rng)
		ops, losses := h.judged()
		by, flushes := spread(ops)
		r := register{0, ops, by[0], flushes, losses}
		list, _ := r.operations(true)
		want := porcupine.CheckOperations(plain, list)
		_, err := Check(h, time.Second)
		if _, refused := errors.AsType[*Refused](err); err != nil && !refused {
			t.Fatal(err)
		}
		if r.read() && (err == nil) != want {
			t.Fatalf("accepted %v, plainly %v: %v losses %v", err == nil, want, slices.Clone(ops), losses)
		}
		verdicts[want]++
	}
	if verdicts[true] < 1000 || verdicts[false] < 1000 {
		t.Errorf("verdicts %v: the histories are too much alike", verdicts)
	}
	t.Log(verdicts)
}
