package runner

import (
	"fmt"
	"strings"

	"hastd/cluster/view"
)

// What people are told, in the words of this field.

func (r *Runner) name(id view.NodeID) string {
	if id == view.Nobody {
		return "nobody"
	}
	if n := r.o.Names[id]; n != "" {
		return n
	}
	return fmt.Sprintf("node %d", id)
}

// Nodes names a set.
func (r *Runner) Nodes(s view.Set) string {
	var names []string
	for _, id := range s.IDs() {
		names = append(names, r.name(id))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

// tell logs a view that was learned.
func (r *Runner) tell(v *view.View) {
	log := r.o.Log.Info
	if v.Member(r.o.Config.View.Self) == nil {
		log = r.o.Log.Warn
	}
	var leaving view.Set
	for _, m := range v.Members {
		if m.Leaving {
			leaving |= view.SetOf(m.ID)
		}
	}
	attrs := []any{"generation", v.Stamp.String(), "members", r.Nodes(v.Set()), "leader", r.name(v.Leader())}
	if leaving != 0 {
		attrs = append(attrs, "leaving", r.Nodes(leaving))
	}
	if v.Origin.How != view.Elected {
		attrs = append(attrs, "era", v.Origin.How.String(), "by", r.name(v.Origin.By), "who", v.Origin.Who)
	}
	log("membership", attrs...)
	for i := range v.Resources {
		x := &v.Resources[i]
		attrs := []any{"generation", v.Stamp.String(), "resource", x.Name, "owner", r.name(x.Owner), "in-sync", r.Nodes(x.InSync)}
		if x.Forced {
			attrs = append(attrs, "forced", true)
		}
		r.o.Log.Info("ownership", attrs...)
	}
}

// report logs what the views' machine says.
func (r *Runner) report(e view.Report) {
	attrs := []any{"about", e.Kind.String(), "reason", e.Text}
	if e.Node != r.o.Config.View.Self {
		attrs = append(attrs, "node", r.name(e.Node))
	}
	switch e.Kind {
	case view.Conflict, view.Wiped, view.ForceFailed, view.Gone:
		r.o.Log.Error("cluster", attrs...)
	case view.Forced:
		r.o.Log.Warn("cluster", attrs...)
	default:
		r.o.Log.Info("cluster", attrs...)
	}
	r.mu.Lock()
	r.status.Last = e.Kind.String() + ": " + e.Text
	r.mu.Unlock()
}
