package metadata

import (
	"math/bits"
	"testing"
)

// TestMapAgainstModel does the same to a map and to a slice of bools.
func TestMapAgainstModel(t *testing.T) {
	for seed := range uint64(120) {
		r := testRand(100 + seed)
		size := 1 + r.Int64N(400*BlockSize)
		if seed < 6 {
			size = []int64{1, 63, 64, 65, 128, 129}[seed] * BlockSize
		}
		m := NewMap(size)
		model := make([]bool, (size+BlockSize-1)/BlockSize)
		span := func() (Block, Block) {
			first := Block(r.IntN(len(model)))
			n := Block(r.IntN(len(model) + 10)) // may reach beyond the end
			if r.IntN(2) == 0 {
				n = Block(r.IntN(70))
			}
			return first, n
		}
		for step := range 200 {
			first, n := span()
			last := min(int(first+n), len(model))
			word := r.IntN(m.Words())
			w := r.Uint64() & r.Uint64()
			what := ""
			switch op := r.IntN(20); {
			case op < 6:
				what = "set"
				m.Set(first, n)
				for b := int(first); b < last; b++ {
					model[b] = true
				}
			case op < 12:
				what = "clear"
				m.Clear(first, n)
				for b := int(first); b < last; b++ {
					model[b] = false
				}
			case op < 15:
				what = "or word"
				m.OrWord(word, w)
				for b := 64 * word; b < min(64*word+64, len(model)); b++ {
					model[b] = model[b] || w>>(b%64)&1 != 0
				}
			case op < 18:
				what = "clear word"
				m.ClearWord(word, w)
				for b := 64 * word; b < min(64*word+64, len(model)); b++ {
					model[b] = model[b] && w>>(b%64)&1 == 0
				}
			case op == 18:
				switch r.IntN(8) {
				case 0:
					what = "fill"
					m.Fill()
					for b := range model {
						model[b] = true
					}
				case 1:
					what = "reset"
					m.Reset()
					clear(model)
				case 2:
					what = "limit"
					n := 1 + r.IntN(len(model)+5)
					m.Limit(int64(n)*BlockSize - r.Int64N(BlockSize))
					model = model[:min(n, len(model))]
				}
			}
			count, next := int64(0), -1
			from := r.IntN(m.Words() + 1)
			for b, set := range model {
				if set {
					count++
					if next < 0 && b/64 >= from {
						next = b / 64
					}
				}
				if m.Word(b/64)>>(b%64)&1 != 0 != set {
					t.Fatalf("seed %d step %d, %s: block %d of %d is not %t", seed, step, what, b, len(model), set)
				}
			}
			if int(m.Blocks()) != len(model) || m.Words() != (len(model)+63)/64 || m.Count() != count {
				t.Fatalf("seed %d step %d, %s: %d blocks %d words count %d; model %d, count %d", seed, step, what, m.Blocks(), m.Words(), m.Count(), len(model), count)
			}
			if got := m.NextWord(from); got != next {
				t.Fatalf("seed %d step %d, %s: next word after %d is %d, want %d", seed, step, what, from, got, next)
			}
			total := 0
			for i := range m.Words() {
				total += bits.OnesCount64(m.Word(i))
			}
			if int64(total) != count {
				t.Fatalf("seed %d step %d, %s: bits beyond the end", seed, step, what)
			}
			first, n = Block(r.IntN(len(model))), Block(r.IntN(80))
			any := false
			for b := int(first); b < min(int(first+n), len(model)); b++ {
				any = any || model[b]
			}
			if m.Any(first, n) != any {
				t.Fatalf("seed %d step %d: any of %d+%d is not %t", seed, step, first, n, any)
			}
		}
	}
}

func TestMapTouchedAndCovered(t *testing.T) {
	r := testRand(20)
	for range 20000 {
		off, length := r.Int64N(20*BlockSize), 1+r.Int64N(10*BlockSize)
		if r.IntN(2) == 0 {
			off, length = off/512*512, (length+511)/512*512
		}
		first, n := Touched(off, length)
		cfirst, cn := Covered(off, length)
		for b := Block(0); b < 40; b++ {
			from, to := int64(b)*BlockSize, int64(b+1)*BlockSize
			touched, covered := off < to && from < off+length, off <= from && to <= off+length
			if touched != (b >= first && b < first+n) {
				t.Fatalf("%d+%d: touched %d+%d, block %d is wrong", off, length, first, n, b)
			}
			if covered != (b >= cfirst && b < cfirst+cn) {
				t.Fatalf("%d+%d: covered %d+%d, block %d is wrong", off, length, cfirst, cn, b)
			}
		}
	}
	if _, n := Covered(100, 200); n != 0 {
		t.Error("a part of a block covers it")
	}
}
