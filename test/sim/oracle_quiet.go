package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// Section 5: a secondary ends what earlier connections asked of it before it tells
// where it stands. What ended later would be taken for an answer to something new, or
// undo it.

// oracleQuiet judges the facts that a node sends.
func (n *node) oracleQuiet(m *replicate.Msg) {
	f, ok := m.Control.(*replicate.Facts)
	if !ok || f.Role == metadata.Primary || n.toldFailed {
		return
	}
	for i := range n.ops {
		// A flush changes nothing, and its answer is for nobody any more.
		if o := &n.ops[i]; o.used && o.kind == opData && o.eff.Disk != replicate.DiskFlush {
			n.w.violate("quiet", "%s tells its facts while operation %d of an earlier connection is under way", n.name, o.eff.Disk)
		}
	}
}
