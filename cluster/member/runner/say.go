package runner

import (
	"fmt"
	"strings"
	"time"

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
	r.races(e)
	attrs := []any{"about", e.Kind.String(), "reason", e.Text}
	if e.Node != r.o.Config.View.Self {
		attrs = append(attrs, "node", r.name(e.Node))
	}
	switch e.Kind {
	case view.Conflict, view.Wiped, view.ForceFailed, view.Gone:
		r.o.Log.Error("cluster", attrs...)
	case view.Forced:
		r.asked = "by order of a person"
		r.o.Log.Warn("cluster", attrs...)
	case view.Asks:
		r.asked = e.Text
		r.o.Log.Info("cluster", attrs...)
	default:
		r.o.Log.Info("cluster", attrs...)
	}
	r.mu.Lock()
	r.status.Last = e.Kind.String() + ": " + e.Text
	r.mu.Unlock()
	if r.o.Reported != nil {
		r.o.Reported(e)
	}
}

// decided notes what a view changed, and why where that is known.
func (r *Runner) decided(old, v *view.View) {
	d := Decision{At: time.Now(), What: r.changes(old, v), Why: r.asked}
	r.mu.Lock()
	r.status.Decided = d
	r.mu.Unlock()
}

// changes says how a view differs from the one before it.
func (r *Runner) changes(old, v *view.View) string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if old == nil {
		return "the first view that this node learned"
	}
	if old.Stamp.Era != v.Stamp.Era {
		add("era %d began (%s, by %s on %s)", v.Stamp.Era, v.Origin.How, v.Origin.Who, r.name(v.Origin.By))
	}
	if in := v.Set() &^ old.Set(); in != 0 {
		add("joined: %s", r.Nodes(in))
	}
	if out := old.Set() &^ v.Set(); out != 0 {
		add("excluded: %s", r.Nodes(out))
	}
	for i := range v.Members {
		m := &v.Members[i]
		switch o := old.Member(m.ID); {
		case o == nil:
		case o.Inc != m.Inc:
			add("%s is a new node: it lost its memory", r.name(m.ID))
		case m.Leaving && !o.Leaving:
			add("%s leaves", r.name(m.ID))
		case o.Leaving && !m.Leaving:
			add("%s stays", r.name(m.ID))
		}
	}
	if a, b := old.Leader(), v.Leader(); a != b {
		add("leader %s -> %s", r.name(a), r.name(b))
	}
	for i := range v.Resources {
		x := &v.Resources[i]
		o := old.Resource(x.Name)
		if o == nil {
			add("%s is new, owner %s, in sync %s", x.Name, r.name(x.Owner), r.Nodes(x.InSync))
			continue
		}
		if o.Owner != x.Owner {
			add("owner of %s %s -> %s", x.Name, r.name(o.Owner), r.name(x.Owner))
		}
		if x.Forced && !o.Forced {
			add("%s was forced", x.Name)
		}
		if o.InSync != x.InSync {
			add("in sync of %s: %s", x.Name, r.Nodes(x.InSync))
		}
	}
	if len(list) == 0 {
		return "nothing but its number"
	}
	return strings.Join(list, "; ")
}
