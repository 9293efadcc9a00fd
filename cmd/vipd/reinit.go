package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// Another list of nodes is taken over by a vipd that starts itself again: what it serves
// stays up meanwhile, and the views, which count the members of the last one and not who
// is configured, take in whoever is new and drop whoever is gone.

// reinitNode takes over nodes that the file names now and did not, or names no more.
func (s *server) reinitNode() error {
	c, err := conf.Load(s.o.Flags.File)
	if err != nil {
		return daemon.ConfigError(s.o.Flags.File, err)
	}
	ch, err := changedNodes(s.o.Conf, c, s.Node())
	if err != nil {
		return err
	}
	if ch.none() {
		return exit.New(exit.Refused, "change them in the file on every node first, then order it on one node after the other", "the nodes in %s are those that run", s.o.Flags.File)
	}
	st := s.quorum.run().Status()
	for _, name := range ch.removed {
		id := s.quorum.ids[name]
		if m := st.View.Member(id); m != nil && !m.Leaving && st.Heard.Has(id) {
			return exit.New(exit.Refused, "stop it there first: systemctl stop vipd", "node %s is gone from %s, and is still a member and heard", name, s.o.Flags.File)
		}
	}
	if err := s.restartNode(); err != nil {
		return err
	}
	s.o.Log.Info("other nodes are configured", "added", strings.Join(ch.added, " "), "removed", strings.Join(ch.removed, " "), "moved", strings.Join(ch.moved, " "))
	return nil
}

// nodeChanges are nodes of one configuration that another one has not, and whose
// addresses differ.
type nodeChanges struct{ added, removed, moved []string }

func (c *nodeChanges) none() bool { return len(c.added)+len(c.removed)+len(c.moved) == 0 }

// changedNodes compares the nodes of two configurations. What differs beside them cannot
// be taken over while the groups are up.
func changedNodes(was, is *conf.Config, self string) (nodeChanges, error) {
	var ch nodeChanges
	var other []string
	for _, n := range is.Nodes {
		if old, err := was.Node(n.Name); err != nil {
			ch.added = append(ch.added, n.Name)
		} else if !slices.Equal(old.Addresses, n.Addresses) || old.Serial != n.Serial {
			ch.moved = append(ch.moved, n.Name)
		}
	}
	for _, n := range was.Nodes {
		if _, err := is.Node(n.Name); err != nil {
			ch.removed = append(ch.removed, n.Name)
		}
	}
	here, err := is.Node(self)
	if err != nil {
		return ch, exit.New(exit.Refused, "hastctl node stop takes it out of the cluster", "this node, %s, is not in the file any more", self)
	}
	wasHere, err := was.Node(self)
	if err != nil {
		return ch, err
	}
	for _, key := range conf.DiffShared(was.SharedHash(), is.SharedHash()) {
		if !ch.explain(key) {
			other = append(other, key)
		}
	}
	hastd, vipd := is.Effective(here)
	wasHastd, wasVipd := was.Effective(wasHere)
	if !reflect.DeepEqual(vipd, wasVipd) {
		other = append(other, "[vipd]")
	}
	if hastd.Control != wasHastd.Control {
		other = append(other, "hastd.control")
	}
	if len(other) > 0 {
		const most = 5
		more := ""
		if n := len(other) - most; n > 0 {
			other, more = other[:most], fmt.Sprintf(" and %d more", n)
		}
		return ch, exit.New(exit.Refused, "put them back, or stop vipd on every node, change them, and start it", "more than nodes and their addresses changed: %s%s", strings.Join(other, ", "), more)
	}
	return ch, nil
}

// explain says whether a key differs because of the nodes that changed.
func (c *nodeChanges) explain(key string) bool {
	for _, name := range slices.Concat(c.added, c.removed) {
		if strings.HasPrefix(key, "node."+name+".") {
			return true
		}
	}
	for _, name := range c.moved {
		if key == "node."+name+".address" {
			return true
		}
	}
	return false
}
