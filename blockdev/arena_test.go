package blockdev

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func newTestArena(t testing.TB, size int64, maxAlloc int) *Arena {
	t.Helper()
	a, err := NewArena(ArenaOptions{Size: size, MaxAlloc: maxAlloc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// waiters says how many wait; a test polls it to know that a goroutine got there.
func (a *Arena) waiters() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for w := a.waiting.head; w != nil; w = w.next {
		n++
	}
	return n
}

func awaitWaiters(t *testing.T, a *Arena, n int) {
	t.Helper()
	for limit := time.Now().Add(5 * time.Second); a.waiters() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d wait, want %d", a.waiters(), n)
		}
	}
}

func TestArenaBuffersAreAlignedAndApart(t *testing.T) {
	a := newTestArena(t, 40<<20, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	type held struct {
		buf  []byte
		mark byte
	}
	var live []held
	for i := range 20000 {
		if len(live) > 0 && rng.IntN(2) == 0 {
			k := rng.IntN(len(live))
			h := live[k]
			if h.buf[0] != h.mark || h.buf[len(h.buf)-1] != h.mark {
				t.Fatal("two buffers overlap")
			}
			live[k] = live[len(live)-1]
			live = live[:len(live)-1]
			a.Put(h.buf)
			continue
		}
		n := 1 + rng.IntN(1<<(12+rng.IntN(10)))
		buf := a.TryGet(n)
		if buf == nil {
			continue
		}
		if len(buf) != n || uintptr(unsafe.Pointer(&buf[0]))%pageSize != 0 {
			t.Fatalf("asked %d, got %d bytes at %p", n, len(buf), &buf[0])
		}
		buf[0], buf[n-1] = byte(i), byte(i)
		live = append(live, held{buf, byte(i)})
	}
	for _, h := range live {
		a.Put(h.buf)
	}
	if a.Free() != a.Size() {
		t.Fatalf("%d of %d bytes free after everything was given back", a.Free(), a.Size())
	}
	// All neighbours are joined again.
	big := a.TryGet(MaxTransfer)
	if big == nil {
		t.Fatal("no room for the largest buffer in an empty arena")
	}
	a.Put(big)
}

func TestArenaServesTheLargeBeforeThoseWhoCameLater(t *testing.T) {
	a := newTestArena(t, 1<<20, 1<<20)
	var held [][]byte
	for range 256 {
		held = append(held, a.Get(4096))
	}
	big := make(chan []byte)
	go func() { big <- a.Get(1 << 20) }()
	awaitWaiters(t, a, 1)
	small := make(chan []byte)
	go func() { small <- a.Get(4096) }()
	awaitWaiters(t, a, 2)
	late := make(chan []byte)
	for i, b := range held[:255] {
		a.Put(b)
		if i == 100 { // there is room for it, but not its turn
			go func() { late <- a.Get(4096) }()
			awaitWaiters(t, a, 3)
		}
		if a.TryGet(4096) != nil {
			t.Fatal("TryGet overtakes one who waits")
		}
	}
	select {
	case <-small:
		t.Fatal("a small buffer overtook the large one that waits")
	default:
	}
	a.Put(held[255])
	b := <-big
	if len(b) != 1<<20 {
		t.Fatal("the large buffer was not served")
	}
	a.Put(b)
	a.Put(<-small)
	a.Put(<-late)
}

func TestArenaCloseWakesWithNil(t *testing.T) {
	a := newTestArena(t, 1<<20, 1<<20)
	b := a.Get(1 << 20)
	got := make(chan []byte)
	go func() { got <- a.Get(4096) }()
	awaitWaiters(t, a, 1)
	a.Close()
	if <-got != nil {
		t.Error("a closed arena gave a buffer to one who waited")
	}
	if a.Get(4096) != nil || a.TryGet(4096) != nil {
		t.Error("a closed arena gives buffers")
	}
	b[0] = 1 // still ours
	a.Put(b)
	if a.mem != nil {
		t.Error("the memory was not given back with the last buffer")
	}
}

func TestArenaLetsWhoWaitsGiveUp(t *testing.T) {
	a := newTestArena(t, 1<<20, 1<<20)
	b := a.Get(512 << 10)
	got := make(chan []byte)
	var gone atomic.Bool
	still := func() bool { return !gone.Load() }
	go func() { got <- a.GetWhile(1<<20, still) }() // first in the queue
	awaitWaiters(t, a, 1)
	small := make(chan []byte)
	go func() { small <- a.GetWhile(4096, func() bool { return true }) }()
	awaitWaiters(t, a, 2)
	go func() { got <- a.GetWhile(1<<20, still) }() // and last
	awaitWaiters(t, a, 3)
	gone.Store(true)
	for range 2 {
		if <-got != nil {
			t.Error("one who gave up got a buffer")
		}
	}
	a.Put(<-small) // there was room for it behind the large one
	a.Put(b)
	if n := a.waiters(); n != 0 || a.Free() != a.Size() {
		t.Errorf("%d wait, %d of %d bytes free", n, a.Free(), a.Size())
	}
}

// Whoever is asked at the moment when it is served either has the buffer or has left
// it to others.
func TestArenaGivingUpLosesNoMemory(t *testing.T) {
	a := newTestArena(t, 1<<20, 1<<20)
	for range 500 {
		b := a.Get(1 << 20)
		w := waiterPool.Get().(*waiter)
		w.order, w.page = orderOf(4096), arenaNone
		a.mu.Lock()
		a.waiting.push(w)
		a.mu.Unlock()
		var left bool
		var both sync.WaitGroup
		both.Go(func() { left = a.leave(w) })
		both.Go(func() { a.Put(b) })
		both.Wait()
		if !left {
			<-w.ready
			a.Put(a.slice(w.page, w.order, 4096))
		}
		waiterPool.Put(w)
		if a.Free() != a.Size() || a.waiters() != 0 {
			t.Fatalf("%d of %d bytes free", a.Free(), a.Size())
		}
	}
}

func TestArenaRefusesWhatIsNotItsOwn(t *testing.T) {
	a := newTestArena(t, 1<<20, 1<<20)
	b := a.Get(8192)
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("no panic:", name)
			}
		}()
		f()
	}
	panics("foreign", func() { a.Put(make([]byte, 4096)) })
	panics("middle", func() { a.Put(b[4096:]) })
	panics("too large", func() { a.Get(2 << 20) })
	a.Put(b)
	panics("given twice", func() { a.Put(b) })
}

func TestArenaUnderContention(t *testing.T) {
	a := newTestArena(t, 4<<20, 1<<20)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 0))
			for range 3000 {
				b := a.Get(1 + rng.IntN(1<<(10+rng.IntN(11))))
				b[0], b[len(b)-1] = byte(g), byte(g)
				if b[0] != byte(g) {
					t.Error("shared")
				}
				a.Put(b)
			}
		})
	}
	wg.Wait()
	if a.Free() != a.Size() {
		t.Errorf("%d of %d bytes free", a.Free(), a.Size())
	}
}

func BenchmarkArena(b *testing.B) {
	a := newTestArena(b, 64<<20, 0)
	for name, n := range map[string]int{"4KiB": 4096, "64KiB": 64 << 10, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Put(a.Get(n))
			}
		})
	}
	b.Run("4KiB-32held", func(b *testing.B) {
		b.ReportAllocs()
		var held [32][]byte
		i := 0
		for b.Loop() {
			a.Put(held[i%32])
			held[i%32] = a.Get(4096)
			i++
		}
	})
}
