package replicate

import (
	"fmt"

	"hastd/metadata"
)

// The connect verdict: one pure function of both sides' facts (replication rules,
// section 5). It is the same whichever side computes it. The rules in their order;
// l is localcnt, r remotecnt:
//
//	 1  sizes, sectors or names do not fit              refused
//	 2  one side, or both, have no resuid               adopt by that side
//	 3  resuids differ                                  refused
//	 4  both inconsistent                               refused
//	 5  a side marked inconsistent, outdated or forced  it is never the source for a clean one
//	 6  lineages disagree                               split-brain
//	 7  counters equal                                  the crashed primary, else the primary, is the source
//	 8  P.l > S.r, S.l = P.r                            P is the source
//	 9  S.l > P.r, P.l = S.r                            S is the source
//	10  both greater                                    split-brain
//	11  anything else                                   refused
//
// After them: two primaries are refused, and a primary in use becomes a target
// only if it never went on alone.

// Outcome is what two replicas may do with each other.
type Outcome uint8

// The outcomes.
const (
	Refused    Outcome = iota + 1
	SplitBrain         // both hold what the other lacks; or one in use would have to be overwritten
	Adopt              // the target takes over the source's identity, then a full sync
	Equal              // neither has what the other lacks; bits in the maps are copied from the primary
	Behind             // the target lacks what the source has
)

var outcomeNames = [...]string{"", "refused", "split-brain", "adopt", "equal", "behind"}

func (o Outcome) String() string { return outcomeNames[o] }

// Verdict is the outcome, with everything that follows from it.
type Verdict struct {
	Outcome Outcome
	Rule    int    // the deciding row above; 12: two primaries, 13: primary in use, 14: direction not certain, 15: the cluster's view
	Source  string // node; empty if there is none
	Target  string
	Full    bool   // everything is copied: the maps do not belong together
	Recover bool   // the source merges the target's history into its own first
	Ahead   string // of two primaries, the node whose data is newer and includes the other's
	Reason  string
	Hint    string
}

// String names a verdict in a form that both sides compare and tests count.
func (v Verdict) String() string {
	s := fmt.Sprintf("%s by rule %d", v.Outcome, v.Rule)
	if v.Source != "" {
		s += ", from " + v.Source
	}
	if v.Full {
		s += ", full"
	}
	if v.Recover {
		s += ", recover"
	}
	return s
}

const marked = metadata.Inconsistent | metadata.Outdated | metadata.Forced

// Judge decides about two replicas.
func Judge(a, b *Facts) Verdict {
	// One order for both sides: the primary first, else the lower id.
	if b.Role == metadata.Primary && a.Role != metadata.Primary ||
		(a.Role == metadata.Primary) == (b.Role == metadata.Primary) && b.NodeID < a.NodeID {
		a, b = b, a
	}
	v := judge(a, b)
	if v.Source != "" && v.Target == "" {
		v.Target = a.Node
		if v.Source == a.Node {
			v.Target = b.Node
		}
	}
	if v.Outcome >= Adopt {
		v = restrict(v, a, b)
	}
	return v
}

// judge applies the rules; p is the primary if there is one.
func judge(p, s *Facts) Verdict {
	if r := misfit(p, s); r != "" {
		return Verdict{Outcome: Refused, Rule: 1, Reason: r}
	}
	if p.Resuid == 0 || s.Resuid == 0 {
		return adoption(p, s)
	}
	if p.Resuid != s.Resuid {
		return Verdict{Outcome: Refused, Rule: 3,
			Reason: fmt.Sprintf("the replicas belong to different resources: resuid %s on %s, %s on %s", p.Resuid, p.Node, s.Resuid, s.Node),
			Hint:   "run hastctl create --force " + p.Resource + " on the node whose data is to be given up"}
	}
	if p.Marks.Has(metadata.Inconsistent) && s.Marks.Has(metadata.Inconsistent) {
		return Verdict{Outcome: Refused, Rule: 4, Reason: "both replicas are inconsistent: neither can be copied from",
			Hint: "promote the better one with hastctl role primary --force " + p.Resource + ", then connect again"}
	}
	for _, x := range [][2]*Facts{{p, s}, {s, p}} {
		if m := x[0].Marks; m.Has(metadata.Inconsistent) && !m.Has(metadata.Raised|metadata.Forced) {
			v := behind(5, x[1], x[0], "is inconsistent: a sync or recovery into it did not end")
			v.Recover = !metadata.Agree(p.Lineage, s.Lineage) || x[0].Localcnt != x[1].Remotecnt
			v.Full = v.Full || counters(p, s).Rule == 11
			return v
		}
	}
	c := counters(p, s)
	if bad := worse(p, s); bad != nil {
		clean := p
		if bad == p {
			clean = s
		}
		switch {
		case p.Localcnt == s.Remotecnt && s.Localcnt == p.Remotecnt:
			return behind(5, clean, bad, "is marked "+(bad.Marks&marked).String())
		case c.Outcome == Behind && c.Source == bad.Node:
			return parted(5, p, s, fmt.Sprintf("%s has writes %s lacks, but is marked %s", bad.Node, clean.Node, bad.Marks&marked))
		}
	}
	if !metadata.Agree(p.Lineage, s.Lineage) {
		if metadata.TooShort(p.Lineage, s.Lineage) {
			return parted(6, p, s, "history too short to tell whether one replica descends from the other")
		}
		return parted(6, p, s, "both replicas have a history of their own")
	}
	return c
}

// misfit says why two components cannot be one resource.
func misfit(p, s *Facts) string {
	if p.Resource != s.Resource {
		return fmt.Sprintf("%s serves resource %q, %s serves %q", p.Node, p.Resource, s.Node, s.Resource)
	}
	if p.Node == s.Node || p.NodeID == s.NodeID {
		return fmt.Sprintf("both sides call themselves %s (id %d)", p.Node, p.NodeID)
	}
	if p.Size != 0 && s.Size != 0 && p.Size != s.Size && p.Resuid == s.Resuid {
		return fmt.Sprintf("agreed sizes differ: %d bytes on %s, %d on %s", p.Size, p.Node, s.Size, s.Node)
	}
	for _, x := range [][2]*Facts{{p, s}, {s, p}} {
		have, want := x[0], x[1]
		if want.Size > have.DataSize {
			return fmt.Sprintf("the component on %s is too small: %d bytes for data, the resource has %d", have.Node, have.DataSize, want.Size)
		}
		if want.Size != 0 && have.Size == 0 && have.SectorSize > want.SectorSize {
			return fmt.Sprintf("the component on %s has sectors of %d bytes, the resource was made with %d", have.Node, have.SectorSize, want.SectorSize)
		}
	}
	return ""
}

// adoption is rule 2.
func adoption(p, s *Facts) Verdict {
	if p.Resuid == 0 && s.Resuid == 0 {
		return Verdict{Outcome: Equal, Rule: 2, Reason: "both replicas are new; promote one"}
	}
	from, to := p, s
	if p.Resuid == 0 {
		from, to = s, p
	}
	switch {
	case from.Marks.Has(metadata.Inconsistent):
		return Verdict{Outcome: Refused, Rule: 2,
			Reason: fmt.Sprintf("%s is new and %s is inconsistent: there is nothing good to copy", to.Node, from.Node),
			Hint:   fmt.Sprintf("promote %s with hastctl role primary --force %s if its data is the best there is", from.Node, p.Resource)}
	case to.Role == metadata.Primary && to.Opened:
		return Verdict{Outcome: Refused, Rule: 2,
			Reason: fmt.Sprintf("%s is new, but primary and in use; %s has data", to.Node, from.Node),
			Hint:   fmt.Sprintf("run hastctl role secondary %s on %s", p.Resource, to.Node)}
	}
	clean := from.Marks.Has(metadata.AssumeClean) && to.Marks.Has(metadata.AssumeClean)
	return Verdict{Outcome: Adopt, Rule: 2, Source: from.Node, Target: to.Node, Full: !clean, Reason: to.Node + " is new"}
}

func behind(rule int, from, to *Facts, why string) Verdict {
	return Verdict{Outcome: Behind, Rule: rule, Source: from.Node, Target: to.Node, Full: !samePair(from, to), Reason: to.Node + " " + why}
}

func parted(rule int, p, s *Facts, why string) Verdict {
	return Verdict{Outcome: SplitBrain, Rule: rule,
		Reason: fmt.Sprintf("%s (%s: localcnt %d remotecnt %d, %s: localcnt %d remotecnt %d)",
			why, p.Node, p.Localcnt, p.Remotecnt, s.Node, s.Localcnt, s.Remotecnt),
		Hint: "choose the node whose data is to be given up, make it secondary and run hastctl recover --discard-local " + p.Resource + " there"}
}

// worse is the one side that rule 5 keeps from being the source: marked while the
// other is clean, or inconsistent while the other is only marked.
func worse(p, s *Facts) *Facts {
	rank := func(f *Facts) int {
		switch {
		case f.Marks.Has(metadata.Inconsistent):
			return 2
		case f.Marks.Has(marked):
			return 1
		}
		return 0
	}
	switch rp, rs := rank(p), rank(s); {
	case rp > rs:
		return p
	case rs > rp:
		return s
	}
	return nil
}

// counters are rules 7 to 11.
func counters(p, s *Facts) Verdict {
	pl, pr, sl, sr := p.Localcnt, p.Remotecnt, s.Localcnt, s.Remotecnt
	switch {
	case sl == pr && sr == pl:
		return equal(p, s)
	case sl == pr && sr < pl:
		return behind(8, p, s, "lacks what "+p.Node+" wrote alone")
	case sl > pr && sr == pl:
		return behind(9, s, p, "lacks what "+s.Node+" wrote alone")
	case sl > pr && pl > sr:
		return parted(10, p, s, "both nodes wrote without each other")
	}
	return Verdict{Outcome: Refused, Rule: 11,
		Reason: fmt.Sprintf("the counters do not fit together (%s: localcnt %d remotecnt %d, %s: localcnt %d remotecnt %d)",
			p.Node, pl, pr, s.Node, sl, sr),
		Hint: "run hastctl recover --discard-local " + p.Resource + " on the node whose data is to be given up; everything is copied to it"}
}

// equal is rule 7: nobody acknowledged alone; a crash may have left writes that
// only the crashed primary finished.
func equal(p, s *Facts) Verdict {
	pc, sc := p.Marks.Has(metadata.CrashedPrimary), s.Marks.Has(metadata.CrashedPrimary)
	switch {
	case pc && sc && p.Epoch.Less(s.Epoch), sc && !pc && !primarySince(p, s):
		return behind(7, s, p, "may lack writes that were under way when "+s.Node+" crashed as primary")
	case pc && sc && s.Epoch.Less(p.Epoch), pc && !sc && !primarySince(s, p):
		return behind(7, p, s, "may lack writes that were under way when "+p.Node+" crashed as primary")
	}
	v := Verdict{Outcome: Equal, Rule: 7, Full: !samePair(p, s), Reason: "neither replica has what the other lacks"}
	if p.Role == metadata.Primary {
		v.Source = p.Node
	}
	return v
}

// primarySince says whether x was primary after y was promoted last.
func primarySince(x, y *Facts) bool {
	return y.Epoch.Less(x.Epoch) || x.Epoch == y.Epoch && x.Epoch.Node == x.NodeID
}

// samePair says whether the maps of two replicas belong together: the pair id of
// their last connection, or the one before it, is common to both.
func samePair(a, b *Facts) bool {
	for _, x := range []metadata.ID{a.Pair, a.PairPrev} {
		if x != 0 && (x == b.Pair || x == b.PairPrev) {
			return true
		}
	}
	return false
}

// restrict refuses what the rules would allow but present use forbids.
func restrict(v Verdict, a, b *Facts) Verdict {
	if a.Role == metadata.Primary && b.Role == metadata.Primary {
		r := Verdict{Outcome: Refused, Rule: 12, Reason: "both nodes are primary",
			Hint: "run hastctl role secondary " + a.Resource + " on one of them"}
		if v.Outcome == Behind {
			r.Ahead = v.Source
			r.Reason = fmt.Sprintf("both nodes are primary, and %s has newer data", v.Source)
			r.Hint = fmt.Sprintf("run hastctl role secondary %s on %s", a.Resource, v.Target)
		}
		return r
	}
	// A secondary that missed a connection this primary had since its promotion is
	// the older one. An epoch from a promotion alone would prove nothing.
	if v.Outcome == Equal && v.Full && v.Source != "" && !b.Epoch.Less(a.AgreedEpoch) {
		return Verdict{Outcome: Refused, Rule: 14,
			Reason: "the replicas were not connected to each other last (one was restored from a copy?), and nothing tells which is newer",
			Hint:   "run hastctl recover --discard-local " + a.Resource + " on the node whose data is to be given up"}
	}
	if v.Target == a.Node && a.Role == metadata.Primary && a.Opened {
		// An epoch that names the primary itself comes from an attempt of its own.
		since := a.AgreedEpoch.Less(b.Epoch) && b.Epoch.Node != a.NodeID
		if a.Alone || since || a.AgreedEpoch == (metadata.Epoch{}) {
			w := parted(13, a, b, fmt.Sprintf("%s is primary and in use, but %s has newer data", a.Node, b.Node))
			w.Hint = fmt.Sprintf("run hastctl role secondary %s on %s first: data must not change below what has it open", a.Resource, a.Node)
			return w
		}
	}
	return v
}
