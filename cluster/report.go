package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Report is what a node tells the others of its groups. It travels in heartbeats.
type Report struct {
	Groups []GroupReport
}

// GroupReport is one group on the node that reports.
type GroupReport struct {
	Name         string
	State        State
	Probed       bool
	AutoDisabled bool
	Frozen       bool
	Wanted       bool // its controller wants it up
	Fit          bool // it may have it
	// Violations counts what was found here in violation, from 1 on and again from 1
	// after 255: what ends within milliseconds must not be missed between two reports.
	Violations uint8
	Parts      []PartReport
}

// PartReport is one part of a group that is not simply down.
type PartReport struct {
	Name  string // its last word
	Kind  Kind
	Up    bool
	Stray bool // up outside the controller
	Stuck bool // it could not be taken down
	Fault bool // it failed, and waits for a person
	Found bool // it is what was found in violation last
}

// Bounds of a report. A configuration that is larger is told in part: what is left out
// is taken to be down. Of a longer name the beginning is told.
const (
	maxReport       = 16 << 10 // bytes
	maxReportGroups = 64
	maxReportParts  = 64
	maxReportName   = 127 // bytes
	reportVersion   = 1
)

// ErrReport is the error of every report that cannot be read.
var ErrReport = errors.New("report of a node's groups")

// Stray says whether what is up on the node came up outside its controller.
func (r *GroupReport) Stray() bool {
	for _, p := range r.Parts {
		if p.Stray {
			return true
		}
	}
	return false
}

// up are the parts that are up.
func (r *GroupReport) up() (names []string) {
	return r.names(func(p *PartReport) bool { return p.Stray || p.Up || p.Stuck })
}

func (r *GroupReport) names(which func(*PartReport) bool) (names []string) {
	for i := range r.Parts {
		if which(&r.Parts[i]) {
			names = append(names, r.Parts[i].Name)
		}
	}
	return names
}

// Report is the group as the other nodes are told of it.
func (g *Group) Report() GroupReport {
	r := GroupReport{Name: g.cfg.Name, State: g.state, Probed: g.Probed(), AutoDisabled: g.AutoDisabled(), Frozen: g.frozen, Wanted: g.wanted(), Fit: g.told.Fit, Violations: g.violations}
	for i := range g.parts {
		p := &g.parts[i]
		x := PartReport{Name: p.short(), Kind: p.Kind, Up: p.is == up, Stray: p.stray, Stuck: p.is == stuck || p.wedged, Fault: p.is == failed || g.fault != "" && g.faultAt == i, Found: slices.Contains(g.found, i)}
		if x.Up || x.Stray || x.Stuck || x.Fault || x.Found {
			r.Parts = append(r.Parts, x)
		}
	}
	return r
}

// Flags of a group and of a part on the wire.
const (
	wireProbed = 1 << iota
	wireAutoDisabled
	wireFrozen
	wireWanted
	wireFit
	wireGroupFlags = 1<<iota - 1
)

const (
	wireUp = 1 << iota
	wireStray
	wireStuck
	wireFault
	wireFound
	wirePartFlags = 1<<iota - 1
)

// Append writes a report: version, number of groups; for each the length of its name,
// the name, state, flags, violations, number of parts; for each part the length of its
// name, the name, kind, flags. Numbers are single bytes; the length of it all comes first, in two.
func (r *Report) Append(b []byte) []byte {
	begin := len(b)
	b = append(b, 0, 0, reportVersion, 0)
	flags := func(list ...bool) (v byte) {
		for i, on := range list {
			if on {
				v |= 1 << i
			}
		}
		return v
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		if i == maxReportGroups {
			break
		}
		before := len(b)
		b = appendName(b, g.Name)
		b = append(b, byte(g.State), flags(g.Probed, g.AutoDisabled, g.Frozen, g.Wanted, g.Fit), g.Violations, 0)
		count := len(b) - 1
		for j, p := range g.Parts {
			if j == maxReportParts {
				break
			}
			b = appendName(b, p.Name)
			b = append(b, byte(p.Kind), flags(p.Up, p.Stray, p.Stuck, p.Fault, p.Found))
			b[count]++
		}
		if len(b)-begin > maxReport {
			b = b[:before]
			break
		}
		b[begin+3]++
	}
	binary.BigEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	return b
}

func appendName(b []byte, s string) []byte {
	s = s[:min(len(s), maxReportName)]
	return append(append(b, byte(len(s))), s...)
}

// reader takes a report apart. After a mistake everything is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// count is a byte that is at most limit.
func (r *reader) count(limit int) int {
	v := int(r.byte())
	if v > limit {
		r.bad = true
		return 0
	}
	return v
}

func (r *reader) name() string {
	n := int(r.byte())
	if n == 0 || n > min(len(r.b), maxReportName) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	for i := range len(s) {
		// It is going to stand in logs and on consoles.
		if s[i] < ' ' || s[i] == 0x7f {
			r.bad = true
		}
	}
	return s
}

// ParseReport reads one. Names and numbers are within bounds afterwards.
func ParseReport(b []byte) (Report, error) {
	if len(b) < 4 || len(b) > maxReport || int(binary.BigEndian.Uint16(b)) != len(b) {
		return Report{}, fmt.Errorf("%w: %d bytes are not its length", ErrReport, len(b))
	}
	if b[2] != reportVersion {
		return Report{}, fmt.Errorf("%w: version %d, and this program knows %d", ErrReport, b[2], reportVersion)
	}
	r := &reader{b: b[3:]}
	var out Report
	for n := r.count(maxReportGroups); n > 0 && !r.bad; n-- {
		g := GroupReport{Name: r.name(), State: State(r.count(int(Faulted)))}
		f := r.count(wireGroupFlags)
		g.Probed, g.AutoDisabled, g.Frozen, g.Wanted, g.Fit = f&wireProbed != 0, f&wireAutoDisabled != 0, f&wireFrozen != 0, f&wireWanted != 0, f&wireFit != 0
		g.Violations = r.byte()
		for m := r.count(maxReportParts); m > 0 && !r.bad; m-- {
			p := PartReport{Name: r.name(), Kind: Kind(r.count(int(Address)))}
			f := r.count(wirePartFlags)
			p.Up, p.Stray, p.Stuck = f&wireUp != 0, f&wireStray != 0, f&wireStuck != 0
			p.Fault, p.Found = f&wireFault != 0, f&wireFound != 0
			g.Parts = append(g.Parts, p)
		}
		out.Groups = append(out.Groups, g)
	}
	if r.bad || len(r.b) > 0 {
		return Report{}, fmt.Errorf("%w: its content cannot be", ErrReport)
	}
	return out, nil
}
