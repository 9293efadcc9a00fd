package sim

import (
	"bytes"
	"strings"
	"testing"
)

// testStage plays a script in a test.
type testStage struct{ *testing.T }

func (t testStage) Missed(format string, args ...any) {
	t.Helper()
	t.Fatalf(format, args...)
}

// newScript makes a world for a test to act in.
func newScript(t *testing.T, change ...func(*Profile)) *script {
	t.Helper()
	w, log := NewWorld(), new(bytes.Buffer)
	w.reset(Options{Seed: 7, Trace: log})
	w.scripted = true
	w.prof = scriptProfile()
	for _, f := range change {
		f(&w.prof)
	}
	w.build()
	s := listen(w, testStage{t})
	s.log = log
	s.catch = func(f func()) {
		t.Helper()
		defer func() {
			t.Helper()
			if r := recover(); r != nil {
				v, ok := r.(violationPanic)
				if !ok {
					panic(r)
				}
				t.Fatal(v.v)
			}
		}()
		f()
	}
	t.Cleanup(func() {
		if t.Failed() {
			lines := strings.Split(log.String(), "\n")
			t.Log("the end of what happened:\n" + strings.Join(lines[max(0, len(lines)-70):], "\n"))
		}
	})
	return s
}
