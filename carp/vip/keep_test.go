package vip

import (
	"math"
	"testing"
	"time"
)

// What the kernel is told: as long as the shorter of the two allows, in whole seconds,
// and nothing of a node that is not rightful.
func TestLeft(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	lease := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
	for i, s := range []struct {
		lifetime time.Duration
		rightful func() bool
		until    func() time.Duration
		want     int
	}{
		{3 * time.Second, nil, nil, 3},
		{2100 * time.Millisecond, nil, nil, 3},
		{0, nil, nil, 1},
		{3 * time.Second, yes, nil, 3},
		{3 * time.Second, no, nil, 0},
		{3 * time.Second, nil, lease(time.Hour), 3},
		{3 * time.Second, nil, lease(math.MaxInt64), 3},
		{3 * time.Second, nil, lease(2 * time.Second), 2},
		{3 * time.Second, nil, lease(2*time.Second - 1), 2},
		{3 * time.Second, nil, lease(1), 1},
		{3 * time.Second, nil, lease(0), 0},
		{3 * time.Second, nil, lease(-1), 0},
		{3 * time.Second, nil, lease(math.MinInt64), 0},
		{3 * time.Second, yes, lease(time.Second), 1},
		{3 * time.Second, yes, lease(0), 0},
		{3 * time.Second, no, lease(time.Hour), 0},
	} {
		k := New(Options{Lifetime: s.lifetime, Rightful: s.rightful, Until: s.until})
		if got := k.left(); got != s.want {
			t.Errorf("row %d: %d s, want %d", i, got, s.want)
		}
	}
}

// A short lifetime is refreshed in time, and one that is over is not asked after all
// the time.
func TestNextRefresh(t *testing.T) {
	for _, s := range []struct{ left, least, most time.Duration }{
		{30 * time.Second, 9 * time.Second, 10 * time.Second},
		{time.Second, leastGap, leastGap},
		{time.Millisecond, leastGap, leastGap},
		{-time.Hour, 20 * time.Second, 20 * time.Second},
	} {
		g := &keeping{k: New(Options{Lifetime: time.Minute}), until: boot() + s.left}
		if d := g.next(); d < s.least || d > s.most {
			t.Errorf("with %v left it looks again after %v, want %v to %v", s.left, d, s.least, s.most)
		}
	}
}
