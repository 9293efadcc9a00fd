package main

import (
	"context"
	"slices"
	"strings"
	"sync"

	"hastd/cluster/member"
	"hastd/cluster/view"
	"hastd/conf"
)

// A group without resources is owned in the views, too: by its claim, which is kept there
// as a replicated device is. Nothing is stored for it, so every node of the group that is
// a member is in sync.

// claimPrefix parts claims from resources, whose names have no slash.
const claimPrefix = "group/"

// claim is what stands in the views for a group without resources.
func claim(g *conf.Group) string { return claimPrefix + g.Name }

// claimed says whether the views decide about a group by a claim.
func claimed(g *conf.Group) bool {
	return len(g.Resources) == 0 && !g.Parallel && g.Election != conf.ElectionExternal
}

// owned is what a node must own to serve a group.
func owned(g *conf.Group) []string {
	if len(g.Resources) > 0 {
		return g.Resources
	}
	return []string{claim(g)}
}

// claims takes the place of hastd for them.
type claims struct {
	mu   sync.Mutex
	told map[string]member.Grant
}

func isClaim(name string) bool { return strings.HasPrefix(name, claimPrefix) }

// grant takes what a view allows: nothing could be in its way.
func (c *claims) grant(name string, g member.Grant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil {
		c.told = map[string]member.Grant{}
	}
	c.told[name] = g
}

// ask says that a peer has everything as soon as it is a member.
func (c *claims) ask(name string) member.Storage {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.told[name]
	s := member.Storage{Resource: name, Told: g.Generation}
	if g.Owner && !g.Hold {
		s.Synced = g.Peer
	}
	return s
}

// addClaims has the views decide about the groups without resources.
func (q *quorum) addClaims(c *conf.Config) {
	for _, g := range c.Groups {
		if !claimed(g) {
			continue
		}
		r := view.ResourceConfig{Name: claim(g)}
		for _, name := range g.Nodes {
			if id, ok := q.ids[name]; ok {
				r.Nodes = append(r.Nodes, id)
			}
		}
		r.First = view.SetOf(r.Nodes...)
		q.opts.Config.View.Resources = append(q.opts.Config.View.Resources, r)
		if slices.Contains(r.Nodes, q.self) {
			q.opts.Resources = append(q.opts.Resources, r.Name)
		}
	}
}

// replicas are the resources that hastd has here.
func (q *quorum) replicas() []string {
	return slices.DeleteFunc(slices.Clone(q.opts.Resources), isClaim)
}

// Grant and Ask go to whom a name belongs.

// Grant passes on what a view allows.
func (g grants) Grant(ctx context.Context, name string, x member.Grant) error {
	if isClaim(name) {
		g.q.claims.grant(name, x)
		return nil
	}
	return g.order(ctx, name, x)
}

// Ask is what is known of it.
func (g grants) Ask(ctx context.Context, name string) (member.Storage, error) {
	if isClaim(name) {
		return g.q.claims.ask(name), nil
	}
	return g.replica(ctx, name)
}
