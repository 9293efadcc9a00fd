package replicate

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"hastd/metadata"
)

// The verdict, rule by rule and scenario by scenario. Every case is judged from
// both sides: they must conclude the same.

const (
	raised       = metadata.Raised
	inconsistent = metadata.Inconsistent
	outdated     = metadata.Outdated
	forced       = metadata.Forced
	crashed      = metadata.CrashedPrimary
)

// side writes the facts of a node in one line: counters, marks, and what else
// differs from a secondary that met its peer at epoch 3 and never lost it.
type set func(f *Facts)

func side(name string, l, r uint64, marks metadata.Marks, more ...set) Facts {
	f := Facts{
		Node: name, NodeID: metadata.NodeID(name[0] - 'A' + 1), Role: metadata.Secondary, Resource: "db",
		Resuid: 0xd0, DataSize: 64 << 20, Size: 64 << 20, SectorSize: 512,
		Localcnt: l, Remotecnt: r, Marks: marks, Epoch: epoch(3, 1), Lineage: history(1), Pair: 0x70, Instance: 1,
	}
	for _, s := range more {
		s(&f)
	}
	return f
}

func epoch(n uint64, node metadata.NodeID) metadata.Epoch {
	return metadata.Epoch{Number: n, Node: node}
}

// history is a lineage, newest first.
func history(ids ...metadata.ID) (l metadata.Lineage) {
	for _, id := range ids {
		l = append(l, metadata.Generation{ID: id})
	}
	return l
}

func at(n uint64, node metadata.NodeID) set { return func(f *Facts) { f.Epoch = epoch(n, node) } }
func past(ids ...metadata.ID) set           { return func(f *Facts) { f.Lineage = history(ids...) } }
func pair(id, prev metadata.ID) set         { return func(f *Facts) { f.Pair, f.PairPrev = id, prev } }
func resuid(id metadata.ID) set             { return func(f *Facts) { f.Resuid = id } }
func primary(f *Facts)                      { f.Role = metadata.Primary }
func fresh(f *Facts) {
	f.Resuid, f.Size, f.Pair, f.Lineage, f.Epoch = 0, 0, 0, nil, metadata.Epoch{}
}

// inUse is a primary whose provider was opened; agreed is the epoch of its last
// agreement since promotion.
func inUse(agreed metadata.Epoch) set {
	return func(f *Facts) { f.Role, f.Opened, f.AgreedEpoch = metadata.Primary, true, agreed }
}
func alone(f *Facts) { f.Alone = true }

func judgeBoth(t *testing.T, a, b Facts) Verdict {
	t.Helper()
	v, w := Judge(&a, &b), Judge(&b, &a)
	if v.Rule == 1 {
		w.Reason = v.Reason // which name of two that clash comes first does not matter
	}
	if v != w {
		t.Errorf("the sides disagree:\n%+v\n%+v", v, w)
	}
	return v
}

type verdictCase struct {
	name string
	a, b Facts
	want string // Verdict.String; with * at its end: how it begins
	says string // words of reason and hint, divided by |
}

func runCases(t *testing.T, cases []verdictCase) {
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			v := judgeBoth(t, c.a, c.b)
			if begin, ok := strings.CutSuffix(c.want, "*"); v.String() != c.want && !(ok && strings.HasPrefix(v.String(), begin)) {
				t.Errorf("verdict %q, want %q (%s)", v, c.want, v.Reason)
			}
			for _, word := range strings.Split(c.says, "|") {
				if !strings.Contains(v.Reason+" / "+v.Hint, word) {
					t.Errorf("%q / %q does not say %q", v.Reason, v.Hint, word)
				}
			}
			if v.Outcome <= SplitBrain && v.Reason == "" {
				t.Error("no reason is given")
			}
			if v.Source != "" && (v.Target == "" || v.Target == v.Source) {
				t.Errorf("from %s to %q", v.Source, v.Target)
			}
		})
	}
}

func TestVerdictRules(t *testing.T) {
	runCases(t, []verdictCase{
		{"1 other resource", side("A", 0, 0, 0), side("B", 0, 0, 0, func(f *Facts) { f.Resource = "www" }), "refused by rule 1", `"db"|"www"`},
		{"1 same node", side("A", 0, 0, 0), side("A", 0, 0, 0), "refused by rule 1", "both sides"},
		{"1 same id", side("A", 0, 0, 0), side("B", 0, 0, 0, func(f *Facts) { f.NodeID = 1 }), "refused by rule 1", "id 1"},
		{"1 peer too small", side("A", 0, 0, 0), side("B", 0, 0, 0, fresh, func(f *Facts) { f.DataSize = 32 << 20 }), "refused by rule 1", "B is too small|33554432|67108864"},
		{"1 larger sectors", side("A", 0, 0, 0), side("B", 0, 0, 0, fresh, func(f *Facts) { f.SectorSize = 4096 }), "refused by rule 1", "B has sectors of 4096"},
		{"1 agreed sizes differ", side("A", 0, 0, 0), side("B", 0, 0, 0, func(f *Facts) { f.Size = 32 << 20 }), "refused by rule 1", "agreed sizes differ"},
		{"1 larger peer fits", side("A", 0, 0, 0), side("B", 0, 0, 0, fresh, func(f *Facts) { f.DataSize = 1 << 30 }), "adopt by rule 2, from A, full", "B is new"},
		{"1 smaller sectors fit", side("A", 0, 0, 0, func(f *Facts) { f.SectorSize = 4096 }), side("B", 0, 0, 0, fresh), "adopt by rule 2, from A, full", ""},

		{"2 both new", side("A", 0, 0, 0, fresh), side("B", 0, 0, 0, fresh), "equal by rule 2", "promote one"},
		{"2 B new", side("A", 5, 2, 0), side("B", 0, 0, 0, fresh), "adopt by rule 2, from A, full", "B is new"},
		{"2 A new, B primary", side("A", 0, 0, 0, fresh), side("B", 5, 2, crashed, primary), "adopt by rule 2, from B, full", "A is new"},
		{"2 both assume clean", side("A", 0, 0, metadata.AssumeClean, primary), side("B", 0, 0, metadata.AssumeClean, fresh), "adopt by rule 2, from A", ""},
		{"2 one assumes clean", side("A", 0, 0, metadata.AssumeClean, primary), side("B", 0, 0, 0, fresh), "adopt by rule 2, from A, full", ""},
		{"2 only the new one assumes clean", side("A", 0, 0, 0, primary), side("B", 0, 0, metadata.AssumeClean, fresh), "adopt by rule 2, from A, full", ""},
		{"2 other side inconsistent", side("A", 5, 2, inconsistent), side("B", 0, 0, 0, fresh), "refused by rule 2", "nothing good to copy|promote A"},
		{"2 new side in use", side("A", 0, 0, 0), side("B", 0, 0, 0, fresh, inUse(metadata.Epoch{})), "refused by rule 2", "role secondary db on B"},
		{"2 new side primary, not opened", side("A", 0, 0, 0), side("B", 0, 0, 0, fresh, primary), "adopt by rule 2, from A, full", ""},
		{"2 other side outdated", side("A", 5, 2, outdated), side("B", 0, 0, 0, fresh), "adopt by rule 2, from A, full", ""},

		{"3 other resuid", side("A", 0, 0, 0), side("B", 0, 0, 0, resuid(0xd1)), "refused by rule 3", "00000000000000d0|00000000000000d1|create --force"},
		{"3 before 4", side("A", 0, 0, inconsistent), side("B", 0, 0, inconsistent, resuid(0xd1)), "refused by rule 3", ""},
		{"4 both inconsistent", side("A", 0, 0, inconsistent), side("B", 0, 0, inconsistent), "refused by rule 4", "inconsistent"},
		{"4 whatever else is marked", side("A", 1, 0, inconsistent|raised|forced), side("B", 0, 0, inconsistent|outdated, primary), "refused by rule 4", ""},

		{"5 inconsistent is behind", side("A", 0, 0, 0), side("B", 0, 0, inconsistent), "behind by rule 5, from A", "B is inconsistent"},
		{"5 inconsistent, though it has more", side("A", 0, 0, 0), side("B", 3, 0, inconsistent), "behind by rule 5, from A, recover", ""},
		{"5 inconsistent, though primary", side("A", 0, 0, 0), side("B", 0, 0, inconsistent, primary), "behind by rule 5, from A", ""},
		{"5 inconsistent with a history of its own", side("A", 1, 0, raised, past(2, 1)), side("B", 1, 0, inconsistent, past(3, 1)), "behind by rule 5, from A, recover", ""},
		{"5 inconsistent, odd counters", side("A", 0, 5, 0), side("B", 2, 9, inconsistent), "behind by rule 5, from A, full, recover", ""},
		{"5 inconsistent and raised, has more", side("A", 0, 0, 0), side("B", 1, 0, inconsistent|raised), "split-brain by rule 5", "B has writes A lacks|inconsistent"},
		{"5 inconsistent and raised, equal", side("A", 0, 0, 0), side("B", 0, 0, inconsistent|raised), "behind by rule 5, from A", ""},
		{"5 inconsistent and raised, has less", side("A", 1, 0, 0), side("B", 0, 0, inconsistent|raised), "behind by rule 8, from A", ""},
		{"5 outdated, equal", side("A", 0, 0, 0), side("B", 0, 0, outdated, primary), "behind by rule 5, from A", "outdated"},
		{"5 outdated, has more", side("A", 0, 0, 0), side("B", 1, 0, outdated), "split-brain by rule 5", "outdated"},
		{"5 outdated, has less", side("A", 1, 0, 0), side("B", 0, 0, outdated), "behind by rule 8, from A", ""},
		{"5 forced, equal", side("A", 0, 0, 0, primary), side("B", 0, 0, forced), "behind by rule 5, from A", "forced"},
		{"5 forced, has more", side("A", 0, 0, 0), side("B", 1, 0, forced|raised, primary), "split-brain by rule 5", "forced"},
		{"5 forced, has less", side("A", 1, 0, 0), side("B", 0, 0, forced), "behind by rule 8, from A", ""},
		{"5 inconsistent outranks outdated", side("A", 0, 0, outdated), side("B", 1, 0, inconsistent|raised), "split-brain by rule 5", ""},
		{"5 inconsistent below forced", side("A", 0, 0, forced), side("B", 0, 0, inconsistent|raised), "behind by rule 5, from A", ""},
		{"5 both outdated", side("A", 1, 0, outdated), side("B", 0, 0, outdated), "behind by rule 8, from A", ""},
		{"5 outdated against forced", side("A", 0, 0, outdated), side("B", 1, 0, forced), "behind by rule 9, from B", ""},
		{"5 both forced, both more", side("A", 1, 0, forced), side("B", 1, 0, forced), "split-brain by rule 10", ""},

		{"6 histories of their own", side("A", 1, 0, 0, past(2, 1)), side("B", 1, 1, 0, past(3, 1)), "split-brain by rule 6", "localcnt 1 remotecnt 0|localcnt 1 remotecnt 1|recover --discard-local"},
		{"6 before equal counters", side("A", 0, 0, 0, past(2)), side("B", 0, 0, 0, past(3)), "split-brain by rule 6", ""},
		{"6 one history empty", side("A", 0, 0, 0, past()), side("B", 0, 0, 0), "equal by rule 7", ""},
		{"6 ancestor fell out", side("A", 1, 0, 0, past(17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2)), side("B", 0, 0, 0, past(1)), "split-brain by rule 6", "history too short"},

		{"7 equal", side("A", 0, 0, 0), side("B", 0, 0, 0), "equal by rule 7", ""},
		{"7 equal, A primary", side("A", 4, 2, 0, primary), side("B", 2, 4, 0), "equal by rule 7, from A", ""},
		{"7 equal, B primary", side("A", 4, 2, 0), side("B", 2, 4, 0, primary), "equal by rule 7, from B", ""},
		{"7 A crashed", side("A", 0, 0, crashed, at(3, 1)), side("B", 0, 0, 0, at(3, 1)), "behind by rule 7, from A", "crashed as primary"},
		{"7 A crashed, B promoted since", side("A", 0, 0, crashed, at(3, 1)), side("B", 0, 0, 0, at(4, 2), primary), "equal by rule 7, from B", ""},
		{"7 A crashed, B primary with the same epoch of A", side("A", 0, 0, crashed, at(3, 1)), side("B", 0, 0, 0, at(3, 1), primary), "behind by rule 7, from A", ""},
		{"7 A crashed, equal epochs name B", side("A", 0, 0, crashed, at(3, 2)), side("B", 0, 0, 0, at(3, 2)), "equal by rule 7", ""},
		{"7 A crashed with the higher epoch", side("A", 0, 0, crashed, at(4, 1)), side("B", 0, 0, 0, at(3, 2)), "behind by rule 7, from A", ""},
		{"7 B crashed, A primary", side("A", 0, 0, 0, at(3, 2), primary), side("B", 0, 0, crashed, at(3, 2)), "behind by rule 7, from B", ""},
		{"7 both crashed, A later", side("A", 0, 0, crashed, at(5, 1)), side("B", 0, 0, crashed, at(4, 2), primary), "behind by rule 7, from A", ""},
		{"7 both crashed, B later", side("A", 0, 0, crashed, at(4, 1)), side("B", 0, 0, crashed, at(4, 2)), "behind by rule 7, from B", ""},
		{"7 both crashed, one epoch", side("A", 0, 0, crashed), side("B", 0, 0, crashed, primary), "equal by rule 7, from B", ""},

		{"8 P ahead", side("A", 2, 1, raised, primary, past(2, 1)), side("B", 1, 1, 0), "behind by rule 8, from A", "B lacks what A wrote alone"},
		{"9 S ahead", side("A", 1, 1, 0, primary), side("B", 2, 1, raised, past(2, 1)), "behind by rule 9, from B", "A lacks what B wrote alone"},
		{"10 both ahead", side("A", 1, 0, raised), side("B", 1, 0, raised), "split-brain by rule 10", "A: localcnt 1 remotecnt 0|B: localcnt 1 remotecnt 0"},
		{"11 both behind", side("A", 0, 1, 0), side("B", 0, 1, 0), "refused by rule 11", "do not fit|A: localcnt 0 remotecnt 1|B: localcnt 0 remotecnt 1|recover --discard-local"},
		{"11 half behind", side("A", 0, 5, 0), side("B", 2, 0, 0), "refused by rule 11", ""},
		{"11 after the victim was named", side("A", 0, 1, 0, primary), side("B", 0, 1, inconsistent), "behind by rule 5, from A, full, recover", ""},

		{"12 two primaries, equal", side("A", 0, 0, 0, primary), side("B", 0, 0, 0, primary), "refused by rule 12", "both nodes are primary|role secondary"},
		{"12 two primaries, one behind", side("A", 1, 0, raised, primary), side("B", 0, 0, 0, primary), "refused by rule 12", "role secondary"},
		{"12 two primaries, one inconsistent", side("A", 1, 0, raised, primary), side("B", 0, 0, inconsistent, primary), "refused by rule 12", "role secondary"},
		{"12 two primaries, both new", side("A", 0, 0, 0, fresh, primary), side("B", 0, 0, 0, fresh, primary), "refused by rule 12", "role secondary"},
	})
}

func TestVerdictPrimaryInUse(t *testing.T) {
	ahead := side("B", 1, 0, raised, past(2, 1))
	later := func(n uint64, node metadata.NodeID) Facts {
		f := ahead
		f.Epoch = epoch(n, node)
		return f
	}
	never := metadata.Epoch{}
	runCases(t, []verdictCase{
		{"resumes: never alone, peer never primary", side("A", 0, 0, 0, inUse(epoch(3, 1))), ahead, "behind by rule 9, from B", ""},
		{"resumes though inconsistent", side("A", 0, 0, inconsistent, inUse(epoch(3, 1))), ahead, "behind by rule 5, from B", ""},
		{"not opened", side("A", 0, 0, 0, primary, alone), later(9, 2), "behind by rule 9, from B", ""},
		{"was alone", side("A", 0, 0, 0, inUse(epoch(3, 1)), alone), ahead, "split-brain by rule 13", "role secondary db on A first"},
		{"peer was primary since", side("A", 0, 0, 0, inUse(epoch(3, 1))), later(4, 2), "split-brain by rule 13", "role secondary db on A first"},
		{"an attempt of its own raised the epoch", side("A", 0, 0, 0, inUse(epoch(3, 1)), at(3, 1)), later(4, 1), "behind by rule 9, from B", ""},
		{"same number, other node", side("A", 0, 0, 0, inUse(epoch(3, 1))), later(3, 2), "split-brain by rule 13", ""},
		{"never agreed since promotion", side("A", 0, 0, 0, inUse(never)), ahead, "split-brain by rule 13", ""},
		{"as the source nothing is asked", side("A", 1, 0, raised, inUse(never), alone, past(2, 1)), side("B", 0, 0, 0, at(9, 2)), "behind by rule 8, from A", ""},
		{"split-brain stays what it is", side("A", 1, 0, raised, inUse(epoch(3, 1)), alone), side("B", 1, 0, raised), "split-brain by rule 10", ""},
		{"the crashed peer has more, was alone", side("A", 0, 0, 0, inUse(epoch(3, 2)), at(3, 2), alone), side("B", 0, 0, crashed, at(3, 2)), "split-brain by rule 13", ""},
	})
}

func TestVerdictPairIDs(t *testing.T) {
	on := func(a, b, pa, pb metadata.ID) (Facts, Facts) {
		return side("A", 1, 0, raised, primary, past(2, 1), pair(a, pa)), side("B", 0, 0, 0, pair(b, pb))
	}
	for _, c := range []struct {
		name         string
		a, b, pa, pb metadata.ID
		match        bool
	}{
		{"current", 5, 5, 0, 0, true},
		{"current and older predecessors", 5, 5, 3, 4, true},
		{"B wrote the new one first", 5, 6, 0, 5, true},
		{"A wrote the new one first", 6, 5, 5, 0, true},
		{"predecessors only", 6, 7, 5, 5, true},
		{"nothing common", 5, 6, 4, 3, false},
		{"zero is no id", 0, 0, 0, 0, false},
		{"zero against one", 5, 0, 0, 0, false},
	} {
		a, b := on(c.a, c.b, c.pa, c.pb)
		if v := judgeBoth(t, a, b); v.Full == c.match || v.Outcome != Behind {
			t.Errorf("%s: %s", c.name, v)
		}
	}
}

// TestVerdictConsent: everything is copied without a word only if it is certain
// which side is newer.
func TestVerdictConsent(t *testing.T) {
	strange := pair(0x99, 0)
	runCases(t, []verdictCase{
		{"P agreed on the later epoch", side("A", 0, 0, 0, inUse(epoch(6, 1)), at(6, 1)), side("B", 0, 0, 0, strange, at(5, 1)), "equal by rule 7, from A, full", ""},
		{"P was only promoted to it", side("A", 0, 0, 0, at(6, 1)), side("B", 0, 0, 0, strange, primary, at(7, 2)), "refused by rule 14", ""},
		{"P has the same epoch", side("A", 0, 0, 0, primary, at(5, 1)), side("B", 0, 0, 0, strange, at(5, 1)), "refused by rule 14", "restored from a copy|recover --discard-local"},
		{"P has an older epoch", side("A", 0, 0, 0, at(6, 1)), side("B", 0, 0, 0, primary, strange, at(5, 2)), "refused by rule 14", ""},
		{"without a primary nothing is copied", side("A", 0, 0, 0, at(5, 1)), side("B", 0, 0, 0, strange, at(5, 1)), "equal by rule 7, full", ""},
		{"counters tell", side("A", 1, 0, raised, past(2, 1), primary, at(5, 1)), side("B", 0, 0, 0, strange, at(5, 1)), "behind by rule 8, from A, full", ""},
	})
}

// TestVerdictScenarios are the rows of the replication rules that are decided when
// the nodes meet.
func TestVerdictScenarios(t *testing.T) {
	runCases(t, []verdictCase{
		{"row 1: A wrote alone", side("A", 1, 0, raised|crashed, inUse(epoch(3, 1)), alone, past(2, 1)), side("B", 0, 0, 0), "behind by rule 8, from A", ""},
		{"row 1: A demoted since", side("A", 1, 0, raised, past(2, 1)), side("B", 0, 0, 0), "behind by rule 8, from A", ""},
		{"row 1: B promoted, not written", side("A", 1, 0, raised, past(2, 1)), side("B", 0, 0, 0, primary, at(4, 2)), "behind by rule 9, from A", ""},
		{"row 2: A crashed, B wrote", side("A", 0, 0, crashed), side("B", 1, 0, raised|crashed, inUse(metadata.Epoch{}), alone, at(4, 2), past(2, 1)), "behind by rule 8, from B", ""},
		{"row 3: both wrote alone", side("A", 1, 0, raised|crashed, inUse(metadata.Epoch{}), alone, at(4, 1), past(3, 1)), side("B", 1, 0, raised|crashed, at(4, 2), past(2, 1)), "split-brain by rule 6", "A: localcnt 1|B: localcnt 1"},
		{"row 4: swapped without writes", side("A", 0, 0, 0), side("B", 0, 0, 0, primary, at(4, 2)), "equal by rule 7, from B", ""},
		{"row 5: cut mid-sync", side("A", 1, 0, raised|crashed, inUse(epoch(4, 1)), alone, at(4, 1), past(2, 1)), side("B", 0, 0, inconsistent, at(4, 1)), "behind by rule 5, from A", ""},
		{"row 6: swapped mid-sync, one flap", side("A", 1, 0, raised, at(6, 2), past(2, 1)), side("B", 0, 0, inconsistent|crashed, inUse(epoch(6, 2)), at(6, 2)), "behind by rule 5, from A", ""},
		{"row 7: end of sync cut, both wrote", side("A", 2, 0, raised, at(5, 1), past(3, 2, 1)), side("B", 1, 0, raised|forced|crashed, at(6, 2), past(4, 1)), "split-brain by rule 6", ""},
		{"row 7: B still primary", side("A", 2, 0, raised, at(5, 1), past(3, 2, 1)), side("B", 1, 0, raised|forced|crashed, inUse(metadata.Epoch{}), alone, at(6, 2), past(4, 1)), "split-brain by rule 6", ""},
		{"row 8: end of sync cut", side("A", 2, 0, raised|crashed, inUse(epoch(4, 1)), alone, at(4, 1), past(3, 2, 1)), side("B", 0, 0, inconsistent, at(4, 1)), "behind by rule 5, from A", ""},
		{"row 9: recovery cut mid-sync", side("A", 1, 0, inconsistent, past(2, 1)), side("B", 1, 1, 0, primary, past(9, 3, 2, 1)), "behind by rule 5, from B", ""},
		{"row 10: recovery cut between its steps", side("A", 1, 0, inconsistent, past(2, 1)), side("B", 1, 0, raised, inUse(metadata.Epoch{}), alone, past(3, 1)), "behind by rule 5, from B, recover", ""},
		{"row 11: synced, swapped, B wrote", side("A", 1, 0, 0, past(2, 1)), side("B", 1, 1, raised, inUse(epoch(4, 2)), alone, at(4, 2), past(3, 2, 1)), "behind by rule 8, from B", ""},
		{"row 12: A's disk failed, A still primary", side("A", 0, 0, inconsistent, inUse(epoch(3, 1)), func(f *Facts) { f.Diskless = true }), side("B", 1, 0, raised, past(2, 1)), "behind by rule 5, from B", ""},
		{"row 12: A came back", side("A", 0, 0, inconsistent|crashed), side("B", 1, 0, raised, past(2, 1)), "behind by rule 5, from B", ""},
		{"row 13: resync after a crash, swapped", side("A", 0, 0, 0, at(5, 2)), side("B", 0, 0, inconsistent|crashed, inUse(epoch(5, 2)), at(5, 2)), "behind by rule 5, from A", ""},
		{"row 14: async, both lost power, B promoted while A is connected", side("A", 0, 0, crashed, at(4, 1)), side("B", 0, 0, outdated, primary, at(5, 2)), "behind by rule 5, from A", ""},
		{"row 15: A mounted, B has more", side("A", 0, 0, crashed, inUse(metadata.Epoch{}), alone, at(4, 1)), side("B", 1, 0, raised|crashed, at(4, 2), past(2, 1)), "split-brain by rule 13", "role secondary db on A first"},
		{"row 16: flush by A alone, B promoted by force", side("A", 1, 0, raised|crashed, past(2, 1)), side("B", 1, 0, raised|crashed, inUse(metadata.Epoch{}), alone, at(4, 2), past(3, 1)), "split-brain by rule 6", ""},
		{"row 17: full sync into a new B cut", side("A", 4, 2, raised, primary, past(2, 1)), side("B", 2, 0, inconsistent, past(2, 1)), "behind by rule 5, from A", ""},
		{"row 18: first full sync cut", side("A", 0, 0, crashed, inUse(epoch(3, 1)), alone), side("B", 0, 0, inconsistent), "behind by rule 5, from A", ""},
		{"row 19: B promoted and demoted", side("A", 0, 0, crashed, inUse(epoch(4, 1)), at(4, 1)), side("B", 0, 0, 0, at(5, 2)), "equal by rule 7, from A", ""},
		{"row 20: B restored from a snapshot", side("A", 0, 0, 0, inUse(epoch(6, 1)), at(6, 1), pair(0x72, 0)), side("B", 0, 0, 0, at(5, 1), pair(0x71, 0)), "equal by rule 7, from A, full", ""},
		{"row 20: A has written since", side("A", 0, 0, crashed, primary, at(6, 1), pair(0x72, 0)), side("B", 0, 0, 0, at(5, 1), pair(0x71, 0)), "behind by rule 7, from A, full", ""},
		{"row 21: seventeen flaps", side("A", 1, 0, raised|crashed, inUse(epoch(20, 1)), alone, at(20, 1), past(2, 1)), side("B", 0, 0, inconsistent, at(20, 1)), "behind by rule 5, from A", ""},
		{"row 22: both promoted before meeting", side("A", 0, 0, 0, resuid(0xaa), primary), side("B", 0, 0, 0, resuid(0xbb), primary), "refused by rule 3", "aa|bb"},
		{"row 23: met once, both written apart", side("A", 1, 0, raised, past(2, 1), at(2, 1)), side("B", 1, 0, raised, past(3, 1), at(2, 2)), "split-brain by rule 6", "A: localcnt 1 remotecnt 0|B: localcnt 1 remotecnt 0"},
		{"row 24: b was not copied when A lost power", side("A", 1, 0, raised|crashed, at(5, 1), past(2, 1)), side("B", 0, 0, inconsistent, at(5, 1)), "behind by rule 5, from A", ""},
		{"row 25: what B lost is being copied again", side("A", 0, 0, 0, at(6, 1)), side("B", 0, 0, inconsistent, at(6, 1)), "behind by rule 5, from A", ""},
		{"row 27: the flush of A alone was told", side("A", 1, 0, raised, at(4, 1), past(2, 1)), side("B", 0, 0, crashed, at(5, 2)), "behind by rule 8, from A", ""},
		{"row 27: B wrote too", side("A", 1, 0, raised, at(4, 1), past(2, 1)), side("B", 1, 0, raised|crashed, at(5, 2), past(3, 1)), "split-brain by rule 6", ""},
		{"row 28: B, outdated, was promoted with A there", side("A", 0, 0, crashed, at(6, 2)), side("B", 0, 0, outdated, inUse(epoch(6, 2)), at(6, 2)), "behind by rule 5, from A", ""},
		{"row 29: pair id written by B alone, twice", side("A", 0, 0, 0, primary, pair(0x70, 0)), side("B", 0, 0, 0, pair(0x72, 0x70)), "equal by rule 7, from A", ""},
		{"row 30: after a recovery the winner writes", side("A", 1, 1, 0, past(9, 3, 2, 1)), side("B", 2, 1, raised, inUse(epoch(5, 2)), alone, at(5, 2), past(10, 9, 3, 2, 1)), "behind by rule 8, from B", ""},
		{"row 31: forced winner, recovery cut", side("A", 1, 0, inconsistent, past(2, 1)), side("B", 1, 1, forced, primary, past(9, 3, 2, 1)), "behind by rule 5, from B", ""},
		{"row 31: cut before the winner wrote", side("A", 1, 0, inconsistent, past(2, 1)), side("B", 1, 0, forced|raised, primary, past(3, 1)), "behind by rule 5, from B, recover", ""},
		{"row 32: A's own mark failed, the state directory's holds", side("A", 0, 0, inconsistent|crashed, at(5, 1)), side("B", 1, 0, raised, at(5, 1), past(2, 1)), "behind by rule 5, from B", ""},
		{"row 33: async, A's disk failed, B took over", side("A", 0, 0, inconsistent, inUse(epoch(5, 1)), at(5, 1)), side("B", 1, 0, raised, at(5, 1), past(2, 1)), "behind by rule 5, from B", ""},
		{"row 34: async, the primary is the target", side("A", 0, 0, inconsistent|crashed, inUse(epoch(5, 1)), at(5, 1)), side("B", 1, 0, raised, at(5, 1), past(2, 1)), "behind by rule 5, from B", ""},
		{"row 35: inconsistent P, peer wiped", side("A", 3, 1, inconsistent, primary), side("B", 0, 0, 0, fresh), "refused by rule 2", "promote A"},
	})
}

// TestVerdictEqualCountersNeverSplit: rule 5 says that with equal counters the
// clean side is the source, whatever else is marked.
func TestVerdictEqualCountersNeverSplit(t *testing.T) {
	runCases(t, []verdictCase{
		{"outdated and crashed", side("A", 0, 0, 0), side("B", 0, 0, outdated|crashed, at(4, 2)), "behind by rule 5, from A", ""},
		{"forced and crashed", side("A", 0, 0, 0), side("B", 0, 0, forced|crashed, primary, at(4, 2)), "behind by rule 5, from A", ""},
		{"the clean side crashed", side("A", 0, 0, crashed, past(2, 1)), side("B", 0, 0, outdated, past(3, 1)), "behind by rule 5, from A", ""},
	})
}

// ruling is the table of the rules once more, as simply as it can be written.
func ruling(p, s *Facts) string {
	from := func(rule int, f *Facts) string { return fmt.Sprintf("behind by rule %d, from %s", rule, f.Node) }
	target := func(f *Facts) bool { return f.Marks&(inconsistent|raised|forced) == inconsistent }
	if p.Marks&s.Marks&inconsistent != 0 {
		return "refused by rule 4"
	}
	if target(p) {
		return from(5, s)
	}
	if target(s) {
		return from(5, p)
	}
	var ahead *Facts
	equal := s.Localcnt == p.Remotecnt && s.Remotecnt == p.Localcnt
	both := s.Localcnt > p.Remotecnt && p.Localcnt > s.Remotecnt
	switch {
	case s.Localcnt == p.Remotecnt && s.Remotecnt < p.Localcnt:
		ahead = p
	case s.Localcnt > p.Remotecnt && s.Remotecnt == p.Localcnt:
		ahead = s
	}
	rank := func(f *Facts) int {
		if f.Marks&inconsistent != 0 {
			return 2
		}
		if f.Marks&(outdated|forced) != 0 {
			return 1
		}
		return 0
	}
	if rank(p) != rank(s) {
		good, bad := p, s
		if rank(p) > rank(s) {
			good, bad = s, p
		}
		if equal {
			return from(5, good)
		}
		if ahead == bad {
			return "split-brain by rule 5"
		}
	}
	if !metadata.Agree(p.Lineage, s.Lineage) {
		return "split-brain by rule 6"
	}
	since := func(x, y *Facts) bool { // x was primary since y was
		return y.Epoch.Less(x.Epoch) || x.Epoch == y.Epoch && x.Epoch.Node == x.NodeID
	}
	switch pc, sc := p.Marks&crashed != 0, s.Marks&crashed != 0; {
	case equal && pc && sc && s.Epoch.Less(p.Epoch), equal && pc && !sc && !since(s, p):
		return from(7, p)
	case equal && pc && sc && p.Epoch.Less(s.Epoch), equal && sc && !pc && !since(p, s):
		return from(7, s)
	case equal:
		return "equal by rule 7, from " + p.Node
	case ahead == p:
		return from(8, p)
	case ahead == s:
		return from(9, s)
	case both:
		return "split-brain by rule 10"
	}
	return "refused by rule 11"
}

// TestVerdictEveryCombination compares the verdict with the table for all marks,
// small counters, either history and the epochs that matter.
func TestVerdictEveryCombination(t *testing.T) {
	marks := []metadata.Marks{inconsistent, outdated, forced, raised, crashed}
	combine := func(n int) (m metadata.Marks) {
		for i, x := range marks {
			if n>>i&1 != 0 {
				m |= x
			}
		}
		return m
	}
	epochs := []metadata.Epoch{epoch(3, 1), epoch(3, 2), epoch(4, 1)}
	seen := map[string]int{}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 32 * 32 * 81 {
		c := n / 1024
		p := side("A", uint64(c%3), uint64(c/3%3), combine(n%32), primary)
		s := side("B", uint64(c/9%3), uint64(c/27), combine(n/32%32))
		p.Epoch, s.Epoch = epochs[r.IntN(3)], epochs[r.IntN(3)]
		if r.IntN(3) == 0 {
			p.Lineage, s.Lineage = history(2, 1), history(3, 1)
		}
		if r.IntN(2) == 0 { // the other node leads
			p.Node, p.NodeID, s.Node, s.NodeID = s.Node, s.NodeID, p.Node, p.NodeID
		}
		want := ruling(&p, &s)
		v := judgeBoth(t, s, p)
		got, _ := strings.CutSuffix(v.String(), ", recover")
		got, _ = strings.CutSuffix(got, ", full")
		if got != want {
			t.Fatalf("%s %d/%d %s %v against %s %d/%d %s %v: %q, want %q", p.Node, p.Localcnt, p.Remotecnt, p.Marks, p.Epoch,
				s.Node, s.Localcnt, s.Remotecnt, s.Marks, s.Epoch, got, want)
		}
		seen[want]++
	}
	for _, rule := range []string{"refused by rule 4", "behind by rule 5, from A", "split-brain by rule 5", "split-brain by rule 6", "behind by rule 7, from B",
		"equal by rule 7, from A", "behind by rule 8, from A", "behind by rule 9, from B", "split-brain by rule 10", "refused by rule 11"} {
		if seen[rule] == 0 {
			t.Errorf("%q was never the answer", rule)
		}
	}
}

// TestVerdictIsTheSameFromBothSides judges facts that make no sense together.
func TestVerdictIsTheSameFromBothSides(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	some := func(name string) Facts {
		f := side(name, r.Uint64N(3), r.Uint64N(3), metadata.Marks(r.Uint32N(128)), at(r.Uint64N(3), metadata.NodeID(r.IntN(3))),
			past(metadata.ID(r.Uint64N(3)), 1), pair(metadata.ID(r.Uint64N(3)), metadata.ID(r.Uint64N(3))), resuid(metadata.ID(r.Uint64N(2))))
		f.Role, f.Opened, f.Alone = metadata.Role(r.IntN(3)), r.IntN(2) == 0, r.IntN(2) == 0
		f.AgreedEpoch = epoch(r.Uint64N(3), metadata.NodeID(r.IntN(3)))
		f.Size = r.Int64N(3) << 25
		f.SectorSize <<= 3 * r.IntN(2)
		return f
	}
	for range 50000 {
		v := judgeBoth(t, some("A"), some("B"))
		if t.Failed() {
			return
		}
		if v.Outcome == 0 || v.Rule == 0 || v.Reason == "" || v.Outcome <= SplitBrain && v.Source != "" || v.Outcome >= Adopt && v.Outcome != Equal && v.Source == "" {
			t.Fatalf("%+v", v)
		}
	}
}
