package runner

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hastd/cluster/beat"
)

var noContext = context.Background() // for calls that do not wait

// queue hands a good packet to the owner. If the owner is behind, it is lost, as it may
// be on any network.
func (r *Runner) queue(p beat.Packet, on beat.LinkID) {
	p.Payload = slices.Clone(p.Payload)
	select {
	case r.heard <- received{p, on}:
	default:
		r.dropped.Add(1)
	}
}

// hints say what a refused packet means and what to do.
var hints = [beat.Faults]string{
	beat.FaultSource:  "it comes from an address that is no node's on this link; node.*.address must be what nodes send from",
	beat.FaultRate:    "more packets came than heartbeats ever need",
	beat.FaultLength:  "it is too short or too long",
	beat.FaultVersion: "it is of another version, or no heartbeat at all",
	beat.FaultCluster: "it is of another cluster: cluster.name differs",
	beat.FaultSecured: "one side has a cluster key and the other none: cluster.key-file and cluster.insecure must be alike",
	beat.FaultKey:     "it was made with another cluster key, or was damaged: copy the key file to every node",
	beat.FaultContent: "a field of it cannot be",
	beat.FaultNode:    "its sender is not who has this address, or it is for another node: look at node.*.id and node.*.address",
	beat.FaultReplay:  "it was sent before: somebody records this network, or a switch doubles packets",
	beat.FaultStale:   "it does not show that its sender hears this node now: it was recorded or held back, or packets pass one way only",
	beat.FaultFuture:  "it gives back what was not sent yet",
}

// staleWhile is what every start and every pause brings: it is only counted.
func worthSaying(f beat.Fault) bool { return f != beat.FaultStale }

// refuse counts a bad packet, and says so now and then.
func (r *Runner) refuse(f beat.Fault, on beat.LinkID, node beat.NodeID, from netip.AddrPort) {
	r.refused[f].Add(1)
	if !worthSaying(f) || !r.limit.pass(f) {
		return
	}
	args := []any{"cause", f.String(), "on", on.String(), "hint", hints[f]}
	if from.IsValid() {
		args = append(args, "from", from.String())
	}
	if name, ok := r.names[node]; ok {
		args = append(args, "node", name)
	}
	r.limit.warn(f, "a heartbeat was refused", args...)
}

// sayEvery bounds what bad packets of one cause may write into the log.
const sayEvery = 10 * time.Second

// logLimit passes one record of each cause now and then, and counts the others.
type logLimit struct {
	log *slog.Logger

	mu   sync.Mutex
	seen [beat.Faults]struct {
		at       time.Time
		silenced int
	}
}

// pass says whether a cause may be said now; else it is counted.
func (l *logLimit) pass(f beat.Fault) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.seen[f]
	if now := time.Now(); s.at.IsZero() || now.Sub(s.at) >= sayEvery {
		s.at = now
		return true
	}
	s.silenced++
	return false
}

func (l *logLimit) warn(f beat.Fault, text string, args ...any) {
	l.mu.Lock()
	n := l.seen[f].silenced
	l.seen[f].silenced = 0
	l.mu.Unlock()
	if n > 0 {
		args = append(args, "refused-since", n)
	}
	l.log.Warn(text, args...)
}

// say logs what changed, once, in words that people know.
func (r *Runner) say(e *beat.Effect) {
	node := r.names[e.Node]
	switch e.Kind {
	case beat.EffLink:
		switch e.State {
		case beat.LinkTrouble:
			r.o.Log.Warn(e.Link.String()+" to node "+node+" in trouble", "reason", e.Reason)
		case beat.LinkDown:
			r.o.Log.Warn(e.Link.String()+" to node "+node+" down", "reason", e.Reason)
		default:
			r.o.Log.Info(e.Link.String()+" to node "+node+" up", "reason", e.Reason)
		}
	case beat.EffNode:
		if e.Up {
			r.o.Log.Info("node "+node+" is heard", "incarnation", e.Incarnation)
			return
		}
		r.o.Log.Warn("node "+node+" is no longer heard on any link", "reason", e.Reason, "in-jeopardy", e.Jeopardy)
	case beat.EffJeopardy:
		if e.Up {
			r.o.Log.Warn("node "+node+" in jeopardy", "reason", e.Reason)
			return
		}
		r.o.Log.Info("node "+node+" no longer in jeopardy", "reason", e.Reason)
	case beat.EffClock:
		if e.Differs != 0 {
			r.o.Log.Warn("the wall clock of node "+node+" differs: set both by NTP, or their logs cannot be compared", "ahead", time.Duration(e.Differs).Round(time.Millisecond).String())
			return
		}
		r.o.Log.Info("the wall clock of node " + node + " is as ours again")
	case beat.EffDuplicate:
		r.o.Log.Error("duplicate node: "+e.Reason, "node", node)
	case beat.EffShared:
		if len(e.Differences) == 0 {
			r.o.Log.Info("the configuration of node " + node + " is as ours again")
			return
		}
		var list []string
		for _, d := range e.Differences {
			list = append(list, d.String())
		}
		r.o.Log.Warn("the configuration of node "+node+" differs: what all nodes share must be the same", "keys", list)
	case beat.EffLate:
		if now := time.Now(); now.Sub(r.lateSaid) < sayEvery { // a machine with too much to do
			return
		} else {
			r.lateSaid = now
		}
		r.o.Log.Warn("this node stood still: it listens again before it calls anybody silent", "for", time.Duration(e.Late).Round(time.Millisecond).String())
	}
}
