package sim

import (
	"os"
	"strings"
	"testing"
)

// TestVersionReason: the simulation refuses with transport's words.
func TestVersionReason(t *testing.T) {
	for file, words := range map[string]string{"../../transport/handshake.go": versionReason, "../../transport/errors.go": versionRefused} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), `"`+words+`"`) {
			t.Errorf("%s does not say %q", file, words)
		}
	}
}

// TestScenarioVersionSkew: B's daemon is of a release that A's cannot speak with; A
// goes on alone and both say why, until A's is replaced too.
func TestScenarioVersionSkew(t *testing.T) {
	s := newScript(t)
	s.w.prof.Skew = true
	s.pair()
	s.kill(s.b)
	s.until("A to notice", func() bool { return s.a.sess == nil })
	s.b.speaks = versions{5, 6}
	s.boot(s.b)
	s.until("both to say why", func() bool {
		for i := range s.w.nodes {
			n := &s.w.nodes[i]
			if st := n.status(); st.Status != "degraded" || !strings.HasSuffix(st.Reason, refusal(s.w.peerOf(n), n)) {
				return false
			}
		}
		return true
	})
	s.write(s.a, 3)
	s.flush(s.a)
	s.kill(s.a)
	s.a.speaks = versions{4, 5}
	s.boot(s.a)
	s.connected()
	s.promote(s.a)
	s.complete()
	if s.splits > 0 {
		t.Fatal("split-brain was reported")
	}
}
