package beat

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Digest is a short hash of the shared configuration, or of a group of its keys.
type Digest [8]byte

// Shared is the configuration that must be the same on all nodes: values by dotted
// keys. Heartbeats carry its digest. Where two digests differ, each node sends the
// other one the digests of its groups of keys ("cluster", "node.alpha"), and then the
// keys of those groups that differ.
type Shared map[string]string

// Difference is a key with its values; one that a side does not have is Missing.
type Difference struct {
	Key, Here, There string
}

// Missing is the value of a key that is not there.
const Missing = "(not there)"

// tooMuch stands for differences in what has no room in a message.
var tooMuch = Difference{"(keys beyond what a message holds)", "different", "different"}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s here, %s there", d.Key, d.Here, d.There)
}

// Bounds of what a node says of its configuration.
const (
	maxKeyLength = 512
	maxDiffs     = 64 // told of one node
)

// group is what a key belongs to: the name of its table, with the second part where
// tables have names.
func group(key string) string {
	first, rest, _ := strings.Cut(key, ".")
	if first == "cluster" {
		return first
	}
	if strings.HasPrefix(rest, `"`) { // a quoted name may have dots in it
		if end := strings.IndexByte(rest[1:], '"'); end >= 0 {
			return first + "." + rest[:end+2]
		}
	}
	second, _, _ := strings.Cut(rest, ".")
	return first + "." + second
}

// Digest is that of all.
func (s Shared) Digest() Digest { return s.digest(func(string) bool { return true }) }

func (s Shared) digest(in func(key string) bool) (d Digest) {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if in(k) {
			h.Write(fmt.Appendf(nil, "%q=%q\n", k, s[k]))
		}
	}
	copy(d[:], h.Sum(nil))
	return d
}

// groups are the digests of the groups.
func (s Shared) groups() map[string]Digest {
	keys := map[string]Shared{}
	for k, v := range s {
		g := group(k)
		if keys[g] == nil {
			keys[g] = Shared{}
		}
		keys[g][k] = v
	}
	out := map[string]Digest{}
	for g, of := range keys {
		out[g] = of.Digest()
	}
	return out
}

// appendGroups writes the groups, as many as there is room for.
func (s Shared) appendGroups() (out []byte) {
	groups := s.groups()
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		d := groups[g]
		if len(g) > maxKeyLength || len(out)+2+len(g)+len(d) > MaxBody {
			continue
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(g)))
		out = append(append(out, g...), d[:]...)
	}
	return out
}

func parseGroups(b []byte) (map[string]Digest, bool) {
	r, out := reader{b: b}, map[string]Digest{}
	for len(r.b) > 0 && !r.bad {
		n := int(r.u16())
		if n > maxKeyLength || n > len(r.b) {
			return nil, false
		}
		g := string(r.take(n))
		out[g] = Digest(r.take(len(Digest{})))
	}
	return out, !r.bad
}

// differing are the groups that are not the same on both sides.
func (s Shared) differing(there map[string]Digest) (groups []string) {
	here := s.groups()
	for g, d := range here {
		if there[g] != d {
			groups = append(groups, g)
		}
	}
	for g := range there {
		if _, ok := here[g]; !ok {
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	return groups
}

// appendKeys writes the keys of some groups, as many as there is room for: the names
// of the groups, an empty name, then key and value in turn.
func (s Shared) appendKeys(groups []string) (out []byte) {
	put := func(text string) { out = append(binary.BigEndian.AppendUint16(out, uint16(len(text))), text...) }
	told := map[string]bool{}
	for _, g := range groups {
		if g != "" && len(g) <= maxKeyLength && len(out)+2+len(g) <= MaxBody/4 {
			put(g)
			told[g] = true
		}
	}
	put("")
	for _, k := range slices.Sorted(maps.Keys(s)) {
		v := s[k]
		if !told[group(k)] || k == "" || len(k) > maxKeyLength || len(v) > maxKeyLength || len(out)+4+len(k)+len(v) > MaxBody {
			continue
		}
		put(k)
		put(v)
	}
	return out
}

func parseKeys(b []byte) (groups []string, keys Shared, ok bool) {
	r := reader{b: b}
	text := func() string {
		n := int(r.u16())
		if n > maxKeyLength || n > len(r.b) {
			r.bad, r.b = true, nil
			return ""
		}
		return string(r.take(n))
	}
	for {
		g := text()
		if r.bad {
			return nil, nil, false
		}
		if g == "" {
			break
		}
		groups = append(groups, g)
	}
	keys = Shared{}
	for len(r.b) > 0 && !r.bad {
		k := text()
		keys[k] = text()
	}
	return groups, keys, !r.bad
}

// diff tells the keys of some groups that differ.
func (s Shared) diff(groups []string, there Shared) (out []Difference) {
	in := map[string]bool{}
	for _, g := range groups {
		in[g] = true
	}
	keys := map[string]bool{}
	for k := range s {
		keys[k] = in[group(k)]
	}
	for k := range there {
		keys[k] = in[group(k)]
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		here, a := s[k]
		other, b := there[k]
		if !keys[k] || a == b && here == other {
			continue
		}
		if !a {
			here = Missing
		}
		if !b {
			other = Missing
		}
		if out = append(out, Difference{clean(k), clean(here), clean(other)}); len(out) == maxDiffs {
			break
		}
	}
	return out
}

// clean is a text of another node as it may be shown.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
