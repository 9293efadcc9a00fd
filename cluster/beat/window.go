package beat

// window tells which sequences of one incarnation on one link were seen.
type window struct {
	last uint64
	seen uint64 // bit i: last - i was seen
}

// windowSize is how much later than its successors a packet may come.
const windowSize = 64

// fresh says whether see would take a number.
func (w *window) fresh(n uint64) bool {
	return n > w.last || w.last-n < windowSize && w.seen>>(w.last-n)&1 == 0
}

// see takes a number, once.
func (w *window) see(n uint64) bool {
	switch {
	case !w.fresh(n):
		return false
	case n > w.last:
		w.seen, w.last = w.seen<<(n-w.last)|1, n
	default:
		w.seen |= 1 << (w.last - n)
	}
	return true
}
