package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// check judges what keys mean together. It runs on a configuration that may
// have mistakes already, so each check passes over what is not there.
func (r *reader) check(c *Config) {
	r.checkCluster(c)
	r.checkNodes(c)
	locals := claims{r: r, what: "device or file"}
	providers := claims{r: r, what: "provider path"}
	for _, res := range c.Resources {
		r.checkResource(c, res, &locals, &providers)
		r.checkBuilt(res)
	}
	r.checkGroups(c)
	r.checkVotes(c)
	if len(c.Resources) == 0 && len(c.Groups) == 0 {
		r.warns = append(r.warns, r.file+": there is neither a resource nor a group: the daemons will have nothing to do")
	}
}

// claims finds what two parts of the file want for themselves.
type claims struct {
	r    *reader
	what string
	by   map[string]path
}

// take reports a thing that was taken before. of tells whose it is.
func (c *claims) take(thing, of string, at path) {
	if thing == "" {
		return
	}
	if c.by == nil {
		c.by = map[string]path{}
	}
	key := of + "\x00" + thing
	if first, taken := c.by[key]; taken {
		c.r.wrong(at, fmt.Sprintf("the %s %s is already used by %s (line %d)%s", c.what, quote(thing), first, c.r.line(first), of),
			"change one of them")
		return
	}
	c.by[key] = at
}

func (r *reader) checkCluster(c *Config) {
	cl, at := c.Cluster, path{"cluster"}
	switch {
	case !r.sound(at.with("key-file"), at.with("insecure")):
	case cl.KeyFile == "" && !cl.Insecure:
		r.wrong(at.with("key-file"), "there is no key, so anyone on the network could join",
			`write key-file = "/etc/hast/cluster.key" (made by "hastctl keygen"), or insecure = true`)
	case cl.KeyFile == "" && cl.Insecure:
		r.warn(at.with("insecure"), `there is no cluster key: anyone who reaches the port can take part; "hastctl keygen" makes one`)
	case cl.Insecure:
		r.warn(at.with("insecure"), "has no effect, because key-file is set")
	}

	hb := at.with("heartbeat")
	h := cl.Heartbeat
	if least := leaseIntervals * h.Interval; cl.Lease < least && r.sound(at.with("lease"), hb.with("interval")) {
		r.wrong(at.with("lease"), fmt.Sprintf("%q is shorter than %d heartbeat intervals of %q", FormatDuration(cl.Lease), leaseIntervals, FormatDuration(h.Interval)),
			fmt.Sprintf("write at least %q", FormatDuration(least)))
	}
	if h.Trouble >= h.Timeout && r.sound(hb.with("trouble"), hb.with("timeout")) {
		r.wrong(hb.with("trouble"), fmt.Sprintf("%q is not below timeout, which is %q", FormatDuration(h.Trouble), FormatDuration(h.Timeout)),
			fmt.Sprintf("write less than %q, such as %q", FormatDuration(h.Timeout), FormatDuration(h.Timeout/2)))
	}
	if h.Interval >= h.Trouble && r.sound(hb.with("interval"), hb.with("trouble")) {
		r.wrong(hb.with("interval"), fmt.Sprintf("%q is not below trouble, which is %q", FormatDuration(h.Interval), FormatDuration(h.Trouble)),
			fmt.Sprintf("write less than %q, such as %q", FormatDuration(h.Trouble), FormatDuration(h.Trouble/3)))
	}
	if cl.Quorum == QuorumMajority && len(c.Groups) == 0 && !r.stands("vipd") && !slices.ContainsFunc(c.Nodes, func(n *Node) bool {
		return r.stands("node", n.Name, "vipd")
	}) {
		r.wrong(at.with("quorum"), "majority needs vipd, which alone can hold a lease, and there is neither a group nor a [vipd] section: no resource could ever become primary",
			`add a [group.NAME] or [vipd], or write quorum = "off"`)
	}
}

// leaseIntervals is how many heartbeat intervals a lease must last at least, so
// that one lost renewal does not end it.
const leaseIntervals = 3

// What the views of a cluster with votes have room for (cluster/view, which vipd fills).
const (
	MaxVoters = 8  // nodes, witnesses among them
	MaxOwned  = 64 // resources, and groups without any
	MaxClaim  = 57 // bytes of the name of a group without resources
)

// checkVotes sees that the views have room for all that they decide about.
func (r *reader) checkVotes(c *Config) {
	if c.Cluster.Quorum != QuorumMajority {
		return
	}
	at := path{"cluster", "quorum"}
	const off = `, or write quorum = "off"`
	if len(c.Nodes) > MaxVoters {
		r.wrong(at, fmt.Sprintf("majority is possible with at most %d nodes, witnesses among them, and there are %d", MaxVoters, len(c.Nodes)), "remove some"+off)
	}
	owned := len(c.Resources)
	for _, g := range c.Groups {
		if len(g.Resources) > 0 || g.Parallel || g.Election == ElectionExternal {
			continue
		}
		owned++
		if len(g.Name) > MaxClaim {
			r.wrong(path{"group", g.Name}, fmt.Sprintf("with quorum majority the name of a group without resources has at most %d bytes, and this has %d", MaxClaim, len(g.Name)), "shorten it"+off)
		}
	}
	if owned > MaxOwned {
		r.wrong(at, fmt.Sprintf("majority is possible with at most %d resources and groups without resources in all, and there are %d", MaxOwned, owned), "remove some"+off)
	}
}

// stands says whether the table or key is in the file.
func (r *reader) stands(at ...string) bool {
	n := r.where
	for _, s := range at {
		if n = n.below[s]; n == nil {
			return false
		}
	}
	return true
}

func (r *reader) checkNodes(c *Config) {
	if len(c.Nodes) == 0 && !r.stands("node") {
		r.wrong(path{"node"}, "there is no node", "write [node.NAME] with id and address for each host")
	}
	ids := claims{r: r, what: "id"}
	addresses := claims{r: r, what: "address"}
	// In the order of the file, so that the second of two is the one reported.
	for _, n := range inFileOrder(r, c) {
		at := path{"node", n.Name}
		if id := at.with("id"); r.stands(id...) && r.sound(id) {
			ids.take(fmt.Sprint(n.ID), "", id)
		}
		for i, a := range n.Addresses {
			if a.IsValid() {
				addresses.take(a.String(), "", at.with("address", index(i)))
			}
		}
		if n.hastd.Control == n.vipd.Control {
			r.wrong(r.lowest(at, "vipd", "hastd", "control"), fmt.Sprintf("hastd and vipd of %s would share the control socket %s", n.Name, quote(n.hastd.Control)),
				"give one of them another path")
		}
		if n.hastd.HTTP != "" && n.hastd.HTTP == n.vipd.HTTP {
			r.wrong(r.lowest(at, "vipd", "hastd", "http"), fmt.Sprintf("hastd and vipd of %s would share the HTTP address %s", n.Name, quote(n.hastd.HTTP)),
				"give one of them another port")
		}
	}
}

func inFileOrder(r *reader, c *Config) []*Node {
	nodes := slices.Clone(c.Nodes)
	slices.SortStableFunc(nodes, func(a, b *Node) int {
		return r.where.find(path{"node", a.Name}).seq - r.where.find(path{"node", b.Name}).seq
	})
	return nodes
}

// lowest gives the most special place where key of either section is set: for
// the node itself, else for all.
func (r *reader) lowest(node path, first, second, key string) path {
	for _, at := range []path{node.with(first, key), node.with(second, key), {first, key}, {second, key}} {
		if r.stands(at...) {
			return at
		}
	}
	return path{first, key}
}

func (r *reader) checkResource(c *Config, res *Resource, locals, providers *claims) {
	at := path{"resource", res.Name}
	var ends []*Node
	for _, p := range res.On {
		if p.Node == "" {
			continue
		}
		on := at.with("on", p.Node)
		n := c.node(p.Node)
		switch {
		case n == nil:
			r.wrong(on, "there is no node "+quote(p.Node), r.adviseNode(c, p.Node))
		case n.Witness:
			r.wrong(on, quote(p.Node)+" is a witness, which stores nothing", "name a node without witness = true")
		default:
			ends = append(ends, n)
		}
		place := " on " + p.Node
		locals.take(p.Local, place, on.with("local"))
		if p.Metadata != MetadataInternal {
			locals.take(p.Metadata, place, on.with("metadata"))
		}
		providers.take(p.ProviderPath, place, on.with("provider-path"))
	}
	if len(ends) == len(res.On) && r.sound(path{"node", ends[0].Name, "address"}, path{"node", ends[1].Name, "address"}) {
		r.checkPaths(at, ends[0], ends[1])
	}
	if pol := res.AfterSplitBrain; pol.Kind == SplitBrainNode && res.On[1].Node != "" {
		if _, ok := res.OnNode(pol.Node); !ok {
			r.wrong(at.with("after-split-brain"), quote(pol.Node)+" is not a node of this resource",
				fmt.Sprintf("write %q or %q", SplitBrainNode+":"+SplitBrainKind(res.On[0].Node), SplitBrainNode+":"+SplitBrainKind(res.On[1].Node)))
		}
	}
}

// checkBuilt tells of settings that this build reads and does not carry out.
func (r *reader) checkBuilt(res *Resource) {
	at := path{"resource", res.Name}
	if res.TLS {
		r.wrong(at.with("tls"), "is not in this build, so the resource could not work", "write tls = false; the cluster key proves who the peer is, and encrypts nothing")
	}
	if res.Provider == ProviderUblk || res.Provider == ProviderNBD {
		r.warn(at.with("provider"), quote(string(res.Provider))+" is not in this build: the resource cannot become primary; write "+
			quoteAll([]ProviderKind{ProviderAuto, ProviderFUSE, ProviderNBDServer}))
	}
	const idle = " is not in this build: it has no effect"
	if res.AfterSplitBrain.Kind != SplitBrainNone {
		r.warn(at.with("after-split-brain"), quote(res.AfterSplitBrain.String())+idle+`, and a split-brain waits for "hastctl recover"`)
	}
	if res.Sync.VerifyAfterSync != VerifyNone {
		r.warn(at.with("sync", "verify-after-sync"), quote(string(res.Sync.VerifyAfterSync))+idle)
	}
	if !res.Sync.VerifySchedule.IsZero() {
		r.warn(at.with("sync", "verify-schedule"), quote(res.Sync.VerifySchedule.String())+idle)
	}
}

// checkPaths sees that the addresses of two nodes form paths, pairwise.
func (r *reader) checkPaths(at path, a, b *Node) {
	if len(a.Addresses) != len(b.Addresses) {
		r.wrong(at.with("on"), fmt.Sprintf("%s has %s and %s has %d: the n-th of one and the n-th of the other form a path",
			a.Name, count(len(a.Addresses), "address", "addresses"), b.Name, len(b.Addresses)),
			fmt.Sprintf("write as many in [node.%s] as in [node.%s]", a.Name, b.Name))
		return
	}
	for i := range a.Addresses {
		x, y := a.Addresses[i], b.Addresses[i]
		if x.IsValid() && y.IsValid() && x.Is4() != y.Is4() {
			r.wrong(path{"node", b.Name, "address", index(i)}, fmt.Sprintf("%s and %s of %s cannot form a path: one is IPv4, the other IPv6", y, x, a.Name),
				"write addresses of one family at the same place")
		}
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (r *reader) adviseNode(c *Config, name string) string {
	names := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		names[i] = n.Name
	}
	return r.adviseName(name, names)
}

// maxListed bounds how many names an advice lists.
const maxListed = 10

// adviseName is the function of that name, as long as its answer will be shown.
func (r *reader) adviseName(name string, known []string) string {
	if r.errs.Dropped > 0 {
		return ""
	}
	return adviseName(name, known)
}

// adviseName says which of the known names was meant, or what there is.
func adviseName(name string, known []string) string {
	if near, ok := nearest(name, known); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	switch {
	case len(known) == 0:
		return "define it first"
	case len(known) > maxListed:
		return "known are " + strings.Join(known[:maxListed], ", ") + " and others"
	}
	return "known: " + strings.Join(known, ", ")
}

// hostOf gives the address of a service address without its network.
func hostOf(p netip.Prefix) string { return p.Addr().String() }
