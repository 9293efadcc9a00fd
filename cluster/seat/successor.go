package seat

import (
	"fmt"

	"hastd/cluster/view"
)

// Successor is the node that can have the group: a member in sync of all that it needs,
// which says of itself that it can.
func (c *Config) Successor(v *view.View, able view.Set) (view.NodeID, bool) {
	for _, id := range c.Nodes {
		if id != c.Self && able.Has(id) && c.lacks(v, id) == "" {
			return id, true
		}
	}
	return view.Nobody, false
}

// Unable says why no other node can have the group, "" if one can.
func (c *Config) Unable(v *view.View, able view.Set) string {
	if _, ok := c.Successor(v, able); ok {
		return ""
	}
	for _, id := range c.Nodes {
		if id == c.Self {
			continue
		}
		if why := c.lacks(v, id); why != "" {
			return why
		}
		return fmt.Sprintf("node %s says that it cannot take it", c.Names[id])
	}
	return "it has no other node"
}

// lacks says why another node cannot own what the group needs, "" if it can.
func (c *Config) lacks(v *view.View, id view.NodeID) string {
	switch m := v.Member(id); {
	case v == nil:
		return "no view of the cluster is known"
	case m == nil:
		return fmt.Sprintf("node %s is not a member of view %s", c.Names[id], v.Stamp)
	case m.Leaving:
		return fmt.Sprintf("node %s is leaving", c.Names[id])
	}
	for _, name := range c.Needs {
		if r := v.Resource(name); r == nil || !r.InSync.Has(id) {
			return fmt.Sprintf("node %s is not in sync of %s", c.Names[id], name)
		}
	}
	return ""
}
