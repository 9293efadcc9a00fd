package runner

import (
	"testing"

	"hastd/cluster/view"
)

// Of the resources of a node that is shut out, the one that it did not give up says why
// it no longer serves.
func TestWhyANodeThatIsShutOutHasStopped(t *testing.T) {
	owns := func(handed ...bool) *view.View {
		v := &view.View{}
		for i, h := range handed {
			v.Resources = append(v.Resources, view.Resource{Name: string(rune('a' + i)), Owner: 1, Handed: h})
		}
		return v
	}
	for _, c := range []struct {
		old, now *view.View
		want     string
	}{
		{owns(), owns(), "it owned nothing"},
		{owns(false), owns(true), "it gave up what it owned"},
		{owns(false), owns(false), "its lease is over"},
		{owns(false, false), owns(true, false), "its lease is over"},
		{owns(false, false), owns(false, true), "its lease is over"},
		{owns(false), owns(), "its lease is over"},
	} {
		if got := stopped(1, c.old, c.now); got != c.want {
			t.Errorf("handed %v then %v: %q, want %q", c.old.Resources, c.now.Resources, got, c.want)
		}
	}
	if got := stopped(2, owns(false), owns(false)); got != "it owned nothing" {
		t.Errorf("of another node: %q", got)
	}
}
