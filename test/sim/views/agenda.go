package views

import (
	"container/heap"

	"hastd/cluster/view"
)

// Agenda is what is to happen: the earliest first, of one instant in the order in which
// it was added.
type Agenda struct {
	items items
	added int
}

type item struct {
	at  view.Instant
	seq int
	do  func()
}

// Add has something happen at an instant.
func (a *Agenda) Add(at view.Instant, do func()) {
	a.added++
	heap.Push(&a.items, item{at, a.added, do})
}

// NextAt is when the next thing happens, if there is one.
func (a *Agenda) NextAt() (view.Instant, bool) {
	if len(a.items) == 0 {
		return 0, false
	}
	return a.items[0].at, true
}

// Take takes the next thing off.
func (a *Agenda) Take() (do func()) { return heap.Pop(&a.items).(item).do }

type items []item

func (a items) Len() int { return len(a) }
func (a items) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a items) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *items) Push(x any)   { *a = append(*a, x.(item)) }
func (a *items) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}
