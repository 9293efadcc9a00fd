package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hastd/carp"
	"hastd/cluster"
	brunner "hastd/cluster/beat/runner"
	"hastd/cluster/member"
	mrunner "hastd/cluster/member/runner"
	"hastd/cluster/view"
)

// seat decides about a group by the cluster's view: this node is master while it owns
// all of the group's resources and has a lease. It gives them up once the group is down
// here and must not or cannot come up again, if the other node can have it.
type seat struct {
	u    *group
	q    *quorum
	wake chan struct{}

	mu       sync.Mutex
	joined   time.Time // zero: not yet
	fit      bool
	why      string    // it is not fit
	unfit    time.Time // since when
	resigned time.Time // when it gave up being master by order; zero: it did not
	reason   string

	// Of run alone.
	told      string // what the group was told: "", "master", "backup"
	lame      bool   // it was told so since this node became unfit as master
	gaveAt    time.Time
	ableAt    time.Time    // when another node could have the group, or there was a link, last
	appointed view.Instant // until when adverts were told to speak for this node; 0: they do not

	until atomic.Int64 // the end of the lease by which this node is master; 0: it is not
	had   bool         // this node was master, and the group was not down since
	lost  time.Time    // when the lease was, with the group up; zero: it was not
}

const (
	// seatEvery is the time between two looks at what the other node reports.
	seatEvery = 100 * time.Millisecond
	// unfitFor is how long a node may be unfit before it gives away what it could have: a
	// hastd that starts, or a replica that meets its peer, takes a moment.
	unfitFor = 2 * time.Second
	// noLinkFor is how long a group without a link waits for another node that can have it.
	noLinkFor = 3 * time.Second
	// resignFor is how long a group that was resigned waits for another node to take it;
	// then it comes back.
	resignFor = 10 * time.Second
	// giveAgain is the time between two attempts to hand over.
	giveAgain = 2 * time.Second
	// linkWait is how long the election takes at most to know of a link that is there.
	linkWait = time.Second
)

const noLinkHere = "no interface of the group has a link here"

func newSeat(u *group, q *quorum) *seat {
	return &seat{u: u, q: q, wake: make(chan struct{}, 1), unfit: time.Now()}
}

// Join, Stand, Take and Resign are the group's words (cluster/runner.Decider).

// Join begins to decide. A group that was found up is left as it is until it is clear
// whether this node may still serve it; the group's machine bounds that.
func (s *seat) Join(bool) {
	if e := s.u.election; e != nil {
		e.Join(false) // it only says what is decided here
	}
	s.mu.Lock()
	s.joined = time.Now()
	s.mu.Unlock()
	s.poke()
}

// Stand says whether this node may have the group.
func (s *seat) Stand(fit bool, _ uint8, reason string) {
	s.mu.Lock()
	if s.fit && !fit {
		s.unfit = time.Now()
	}
	s.fit, s.why = fit, reason
	s.mu.Unlock()
	s.poke()
}

// Take does nothing: who owns a group is asked to give it up there (group switch).
func (s *seat) Take() {}

// Resign gives the group to the other node, once it is down here.
func (s *seat) Resign(reason string) {
	s.mu.Lock()
	s.resigned, s.reason = time.Now(), reason
	s.mu.Unlock()
	s.poke()
}

// linked says whether an interface of the group has a link. Without one nobody can reach
// it here.
func (s *seat) linked() bool {
	if s.u.election == nil {
		return true
	}
	state, _ := s.u.election.state()
	return state != carp.Init
}

// left is how much longer this node may hold the group's addresses.
func (s *seat) left() time.Duration {
	return time.Duration(s.until.Load() - int64(brunner.Boot()))
}

func (s *seat) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run decides until ctx ends.
func (s *seat) run(ctx context.Context) {
	tick := time.NewTicker(seatEvery)
	defer tick.Stop()
	for {
		changed := s.q.run().Changed()
		s.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-changed:
		case <-tick.C:
		}
	}
}

// taken ends a resignation: another node has what was given up.
func (s *seat) taken(resigned time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resigned.Equal(resigned) {
		s.resigned = time.Time{}
	}
}

func (s *seat) look(ctx context.Context) {
	s.mu.Lock()
	joined, fit, why, unfit, resigned, reason := s.joined, s.fit, s.why, s.unfit, s.resigned, s.reason
	if !resigned.IsZero() && time.Since(resigned) > resignFor {
		resigned = time.Time{}
		s.resigned = resigned
	}
	s.mu.Unlock()
	if joined.IsZero() {
		return
	}
	st := s.q.run().Status()
	mine, all := s.mine(&st)
	if len(mine) == 0 && !resigned.IsZero() {
		s.taken(resigned)
		resigned = time.Time{}
	}
	noLink, sick := !s.linked(), !fit && time.Since(unfit) > unfitFor
	s.lame = s.lame && sick
	able := s.able()
	if able || !noLink {
		s.ableAt = time.Now()
	}
	switch {
	case s.told == "" && s.undecided(&st, mine, all, noLink && time.Since(joined) < linkWait):
	// Without a link the group goes to where there is one. If it cannot, it runs here all
	// the same after a while: only a primary brings the other replica in sync.
	case all && noLink && (able || s.told != "master" && time.Since(s.ableAt) < noLinkFor):
		s.tell("backup", noLinkHere)
	case all && sick && (s.lame || s.told == "master" && able):
		s.lame = true
		s.tell("backup", why)
	case all && resigned.IsZero():
		s.tell("master", fmt.Sprintf("view %s names this node owner", st.View.Stamp))
	case !all && (s.told == "master" || st.Up || s.told == "" && len(mine) == 0):
		s.tell("backup", s.because(&st))
	case !resigned.IsZero():
		s.told = "backup" // it knows: it said so
	}
	s.appoint(&st)
	s.reset(all)
	var away string
	switch {
	case len(mine) == 0 || !st.Up:
		return
	case !resigned.IsZero():
		away = reason
	case noLink:
		away = noLinkHere
	case !fit && (s.u.machine.Status().State == cluster.Faulted || time.Since(unfit) > unfitFor):
		away = why
	case s.elsewhere(&st):
		away = "the group's first resource is owned there"
	default:
		return
	}
	s.hand(ctx, &st, mine, away)
}

// undecided says whether it is not clear yet, after the start, if this node serves the
// group: the view gives it the group, and there is no lease yet; or the election has not
// found its link. A group that was found up is kept meanwhile, and its machine bounds
// for how long.
func (s *seat) undecided(st *mrunner.Status, mine []string, all, early bool) bool {
	switch {
	case st.View == nil:
		return true
	case all:
		return early
	}
	return len(mine) == len(owned(s.u.conf))
}

// elsewhere says whether another node has what comes first of the group.
func (s *seat) elsewhere(st *mrunner.Status) bool {
	r := st.View.Resource(owned(s.u.conf)[0])
	return r != nil && r.Owner != s.q.self
}

// mine are the resources of the group that the view gives to this node; all says
// whether that is every one, with a lease.
func (s *seat) mine(st *mrunner.Status) (list []string, all bool) {
	all = st.Up
	for _, name := range owned(s.u.conf) {
		if r := st.View.Resource(name); r != nil && r.Owner == s.q.self {
			list = append(list, name)
		}
		all = all && st.Owns[name]
	}
	return list, all
}

// appoint has the adverts speak for this node as long as it is master, and its lease
// lasts.
func (s *seat) appoint(st *mrunner.Status) {
	e := s.u.election
	var until view.Instant
	if s.told == "master" {
		until = st.Lease
	}
	s.until.Store(int64(until))
	if e == nil || until == s.appointed {
		return
	}
	s.appointed = until
	e.tell(carp.Event{Kind: carp.EvAppoint, Up: until != 0, Until: carp.Instant(until), Reason: "by the cluster's view"})
}

// reset has this machine go down, with toc, if its lease was lost and the group is not
// down in time: others may serve then.
func (s *seat) reset(leased bool) {
	switch {
	case leased:
		s.had, s.lost = s.had || s.told == "master", time.Time{}
	case !s.had || s.down():
		s.had, s.lost = false, time.Time{}
	case s.lost.IsZero():
		s.lost = time.Now()
	case time.Since(s.lost) >= s.u.s.graceTOC():
		s.had, s.lost = false, time.Time{}
		if f := s.u.s.fencer.Load(); f != nil {
			f.LeaseEnded(s.u.conf.Name)
		}
	}
}

// graceTOC is how long a group that lost its lease may take to go down before the
// machine does, with toc: members promise to wait as long as the watchdog takes.
func (s *server) graceTOC() time.Duration {
	return max(s.o.Conf.Cluster.WatchdogTimeout-s.o.Conf.Cluster.Lease, 0)
}

// because says why this node is not master.
func (s *seat) because(st *mrunner.Status) string {
	for _, name := range owned(s.u.conf) {
		switch r := st.View.Resource(name); {
		case st.View == nil:
			return "no view of the cluster is known"
		case r == nil:
			return fmt.Sprintf("%s is in no view yet", name)
		case r.Owner == view.Nobody:
			return fmt.Sprintf("view %s gives %s to nobody", st.View.Stamp, name)
		case r.Owner != s.q.self:
			return fmt.Sprintf("view %s gives %s to node %s", st.View.Stamp, name, s.q.name(r.Owner))
		}
	}
	if st.Waits != "" {
		return "there is no lease: " + st.Waits
	}
	return "there is no lease"
}

// tell hands the group's machine what is new.
func (s *seat) tell(word, reason string) {
	if word == s.told {
		return
	}
	s.told = word
	s.u.s.o.Log.Info(fmt.Sprintf("group %s: %s", s.u.conf.Name, word), "group", s.u.conf.Name, "reason", reason)
	s.u.onElected(word == "master", reason)
}

// hand gives resources to the other node, if the group is down here and can run there.
func (s *seat) hand(ctx context.Context, st *mrunner.Status, mine []string, why string) {
	if time.Since(s.gaveAt) < giveAgain || !s.down() {
		return
	}
	to, ok := s.successor(st)
	if !ok {
		return
	}
	s.gaveAt = time.Now()
	s.u.s.o.Log.Info("the group is handed over", "group", s.u.conf.Name, "node", s.q.name(to), "reason", why)
	_ = s.q.run().Do(ctx, member.Stopped{Resources: mine, To: to})
}

// down says whether nothing of the group is up here or on its way.
func (s *seat) down() bool {
	g := s.u.machine.Status()
	if !g.Probed || g.Frozen || g.State != cluster.Offline && g.State != cluster.Faulted {
		return false
	}
	for _, p := range g.Parts {
		if p.State != "down" {
			return false
		}
	}
	return true
}

// successor is the node that can have the group: a member in sync of all its resources
// that says of itself that it can.
func (s *seat) successor(st *mrunner.Status) (view.NodeID, bool) {
	for _, name := range s.u.conf.Nodes {
		id, ok := s.q.ids[name]
		if !ok || id == s.q.self || st.View.Member(id) == nil || st.View.Member(id).Leaving {
			continue
		}
		for _, r := range owned(s.u.conf) {
			x := st.View.Resource(r)
			ok = ok && x != nil && x.InSync.Has(id)
		}
		if ok && s.u.s.able(name, s.u.conf.Name) {
			return id, true
		}
	}
	return 0, false
}

// able says whether another node can have the group.
func (s *seat) able() bool { return s.unable() == "" }

// unable says why no other node can have the group, "" if one can.
func (s *seat) unable() string {
	st := s.q.run().Status()
	if st.View == nil {
		return "no view of the cluster is known"
	}
	if _, ok := s.successor(&st); ok {
		return ""
	}
	for _, name := range s.u.conf.Nodes {
		id := s.q.ids[name]
		if id == s.q.self {
			continue
		}
		if st.View.Member(id) == nil {
			return fmt.Sprintf("node %s is not a member of view %s", name, st.View.Stamp)
		}
		for _, r := range owned(s.u.conf) {
			if x := st.View.Resource(r); x == nil || !x.InSync.Has(id) {
				return fmt.Sprintf("node %s is not in sync of %s", name, r)
			}
		}
		return fmt.Sprintf("node %s says that it cannot take it", name)
	}
	return "it has no other node"
}
