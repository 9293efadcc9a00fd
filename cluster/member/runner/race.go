package runner

import (
	"time"

	"hastd/cluster/view"
)

// race follows the loss of members for people, in the words of this field: when one falls
// silent, the sides that are left race for the next view. Who asks for it is the racer,
// who only votes a spectator. The wait for the lease of who is shut out lies before the
// race, so there is none behind it: a view that takes something from a node is committed
// only once that node has stopped serving, and with it the fencing is completed.
type race struct {
	began time.Time     // when a member fell silent; zero: all are heard
	delay time.Duration // from then until this node asked for another view
	racer bool          // it did
	lost  bool          // that it is lost has been said
}

// silent looks for members that are not heard.
func (r *Runner) silent(nodes view.Set) {
	v := r.m.View()
	if v == nil || !r.m.Up() {
		return // a node that is none, or starts, races for nothing
	}
	self := view.SetOf(r.o.Config.View.Self)
	lost := v.Set() &^ nodes &^ self
	switch {
	case lost == 0:
		r.race = race{}
	case r.race.began.IsZero():
		r.race.began = time.Now()
		r.o.Log.Warn("reconfiguration", "generation", v.Stamp.String(), "members", r.Nodes(v.Set()), "silent", r.Nodes(lost),
			"leader", r.name(v.Leader()), "leader-side", r.side(v, nodes))
	}
}

// side says where the leader is, seen from here.
func (r *Runner) side(v *view.View, nodes view.Set) string {
	if (nodes | view.SetOf(r.o.Config.View.Self)).Has(v.Leader()) {
		return "this"
	}
	return "other"
}

// races takes what the views' machine says of a race. What it led to may be known, and is
// told after it.
func (r *Runner) races(e view.Report) {
	v := r.was
	if r.race.began.IsZero() || v == nil {
		return
	}
	r.mu.Lock()
	nodes := r.nodes & v.Set()
	r.mu.Unlock()
	delay := time.Since(r.race.began)
	switch {
	case e.Kind == view.Asks && !r.race.racer:
		r.race.racer, r.race.delay = true, delay
		r.o.Log.Info("this node is racer", "generation", v.Stamp.String(), "spectators", r.Nodes(nodes), "pre-race-delay", delay.Round(time.Millisecond).String())
	case e.Kind == view.Waiting && !r.race.lost && !v.Quorum(nodes|view.SetOf(r.o.Config.View.Self)):
		r.race.lost = true
		r.o.Log.Warn("race lost", "generation", v.Stamp.String(), "leader-side", r.side(v, nodes), "reason", e.Text)
	}
}

// raced tells how a race ended, by the view that it led to.
func (r *Runner) raced(old, v *view.View) {
	was := r.race
	r.race = race{}
	if old == nil || old.Stamp.Era != v.Stamp.Era {
		return // a person decided, and knows what is fenced
	}
	var out view.Set // who is shut out: who leaves in order is none of them
	for _, m := range old.Members {
		if v.Member(m.ID) == nil && !(m.Leaving && was.began.IsZero()) {
			out |= view.SetOf(m.ID)
		}
	}
	if out == 0 {
		return
	}
	generation := v.Stamp.String()
	if out.Has(r.o.Config.View.Self) {
		r.o.Log.Warn("race lost", "generation", generation, "members", r.Nodes(v.Set()), "reason", "the view does not name this node")
		return
	}
	attrs := []any{"generation", generation, "as", "spectator"}
	switch {
	case was.racer:
		attrs = []any{"generation", generation, "as", "racer", "pre-race-delay", was.delay.Round(time.Millisecond).String()}
	case r.asked != "": // for a node that is heard here, and not by the others
		attrs[3] = "racer"
	}
	r.o.Log.Info("race won", append(attrs, "members", r.Nodes(v.Set()), "leader", r.name(v.Leader()), "post-race-delay", "0s")...)
	for _, id := range out.IDs() {
		r.o.Log.Info("fencing completed", "generation", generation, "node", r.name(id), "reason", stopped(id, old, v))
	}
}

// stopped says why a node that v shuts out no longer serves what it owned in old.
func stopped(id view.NodeID, old, v *view.View) string {
	why := "it owned nothing"
	for i := range old.Resources {
		if old.Resources[i].Owner != id {
			continue
		}
		if x := v.Resource(old.Resources[i].Name); x == nil || !x.Handed {
			return "its lease is over"
		}
		why = "it gave up what it owned"
	}
	return why
}
