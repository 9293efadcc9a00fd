package conf

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// checkGroups judges the groups and what they must not share.
func (r *reader) checkGroups(c *Config) {
	resources := claims{r: r, what: "resource"}
	addresses := claims{r: r, what: "address"}
	dirs := claims{r: r, what: "mount point"}
	devices := claims{r: r, what: "device"}
	vhids := claims{r: r, what: "vhid"}
	taken := map[string]string{} // addresses of nodes
	for _, n := range c.Nodes {
		for _, a := range n.Addresses {
			taken[a.String()] = n.Name
		}
	}
	for _, g := range c.Groups {
		at := path{"group", g.Name}
		r.checkGroup(c, g)
		for i, name := range g.Resources {
			resources.take(name, "", at.with("resources", index(i)))
		}
		names := claims{r: r, what: "name"}
		for i, a := range g.Addresses {
			where := at.with("address", index(i))
			addresses.take(hostOf(a.CIDR), "", where)
			names.take(a.Name, "", where)
			if n, ok := taken[hostOf(a.CIDR)]; ok {
				r.wrong(where, fmt.Sprintf("%s is the address of node %s itself", hostOf(a.CIDR), n), "write an address that no host has of its own")
			}
		}
		for i, m := range g.Mounts {
			where := at.with("mount", index(i))
			dirs.take(m.Dir, "", where.with("dir"))
			devices.take(m.Device, "", where.with("device"))
			r.checkDevice(c, g, m.Device, where.with("device"))
		}
		if g.elects(c) {
			for _, ifc := range g.Interfaces {
				vhids.take(fmt.Sprint(g.VHID), " on "+ifc, at.with("vhid"))
			}
		}
	}
}

// elects says whether the group's nodes advertise on its interfaces.
func (g *Group) elects(c *Config) bool {
	return g.Election != ElectionExternal && !g.Parallel && (len(g.Addresses) > 0 || c.Cluster.Quorum == QuorumOff)
}

func (r *reader) checkGroup(c *Config, g *Group) {
	at := path{"group", g.Name}
	for i, name := range g.Nodes {
		n := c.node(name)
		where := at.with("nodes", index(i))
		switch {
		case n == nil:
			r.wrong(where, "there is no node "+quote(name), r.adviseNode(c, name))
			continue
		case n.Witness:
			r.wrong(where, quote(name)+" is a witness, which runs nothing", "remove it here; it votes without being named")
			continue
		}
		for _, rn := range g.Resources {
			if res := c.resource(rn); res != nil {
				if _, ok := res.OnNode(name); !ok {
					r.wrong(where, fmt.Sprintf("resource %q of the group is not on %q, so the group cannot run there", rn, name),
						"remove the node here, or the resource from the group")
				}
			}
		}
	}
	for i, name := range g.Resources {
		if c.resource(name) == nil {
			known := make([]string, len(c.Resources))
			for j, res := range c.Resources {
				known[j] = res.Name
			}
			r.wrong(at.with("resources", index(i)), "there is no resource "+quote(name), r.adviseName(name, known))
		}
	}
	if g.Parallel && len(g.Resources) > 0 {
		r.wrong(at.with("parallel"), "a parallel group is online on several nodes, and a resource has one primary", "write parallel = false, or move the resources to another group")
	}
	if g.Parallel && len(g.Addresses) > 0 {
		r.wrong(at.with("parallel"), "a parallel group is online on several nodes, and an address must stand on one", "write parallel = false, or move the addresses to another group")
	}
	if c.Cluster.Quorum == QuorumMajority && !g.Parallel && g.Election != ElectionExternal && len(g.Nodes) > 2 {
		r.wrong(at.with("nodes"), "the votes of a cluster give a group to one of two nodes, not of more", "name the two nodes on which it may run")
	}
	if len(g.Interfaces) == 0 && !r.stands("group", g.Name, "interfaces") {
		switch {
		case len(g.Addresses) > 0:
			r.wrong(at.with("interfaces"), "is missing: the addresses have nowhere to stand", `write interfaces = ["eth0"]`)
		case g.elects(c):
			r.wrong(at.with("interfaces"), fmt.Sprintf("is missing: with quorum off, %s elects over an interface", g.Election),
				`write interfaces = ["eth0"], or election = "external"`)
		}
	}
	r.checkHaste(c, g)
	r.checkServices(g)
}

// checkHaste warns of an election that is over before the heartbeats can tell that the
// last link of several is the one in trouble: the group would be taken over from a node
// that may live.
func (r *reader) checkHaste(c *Config, g *Group) {
	if c.Cluster.Quorum != QuorumOff || !g.elects(c) {
		return
	}
	name, every := "advbase", time.Duration(g.AdvBase)*time.Second
	if g.Election == ElectionVRRP {
		name, every = "advert-interval", g.AdvertInterval
	}
	down := time.Duration(g.DeadRatio) * every
	if down > c.Cluster.Heartbeat.Trouble || c.links(g.Nodes) < 2 {
		return
	}
	r.warn(path{"group", g.Name, name}, fmt.Sprintf("another node takes the group over after %q, before a link is in trouble (cluster.heartbeat.trouble = %q): it does so, too, "+
		"if the last of several links is lost and nobody can tell what the node with the group does", FormatDuration(down), FormatDuration(c.Cluster.Heartbeat.Trouble)))
}

// links is on how many links, a serial line among them, two of the nodes hear each other
// at most.
func (c *Config) links(nodes []string) int {
	most := 0
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			a, b := c.node(a), c.node(b)
			if a == nil || b == nil {
				continue
			}
			n := min(len(a.Addresses), len(b.Addresses))
			if a.Serial != "" && b.Serial != "" {
				n++
			}
			most = max(most, n)
		}
	}
	return most
}

// checkDevice sees that a mount of a provider belongs to the provider's group:
// elsewhere the device would not exist when the mount is wanted.
func (r *reader) checkDevice(c *Config, g *Group, device string, at path) {
	for _, res := range c.Resources {
		if !slices.ContainsFunc(res.On[:], func(p Component) bool { return p.ProviderPath == device && device != "" }) {
			continue
		}
		if !slices.Contains(g.Resources, res.Name) {
			r.wrong(at, fmt.Sprintf("%s is the device of resource %q, which is not in this group", quote(device), res.Name),
				fmt.Sprintf("add %q to resources of [group.%s]", res.Name, g.Name))
		}
		if res.Provider == ProviderNBDServer {
			r.wrong(at, fmt.Sprintf("resource %q has provider = %q, which is a socket and cannot be mounted", res.Name, res.Provider),
				`write provider = "auto" there`)
		}
		return
	}
	if strings.HasPrefix(device, "/dev/hast/") {
		known := make([]string, 0, len(c.Resources))
		for _, res := range c.Resources {
			known = append(known, res.On[0].ProviderPath)
		}
		r.wrong(at, "no resource has the device "+quote(device), r.adviseName(device, known))
	}
}

// checkServices sees that names are unique and that what is required exists
// and does not wait for itself.
func (r *reader) checkServices(g *Group) {
	at := path{"group", g.Name, "service"}
	names := claims{r: r, what: "name"}
	byName := map[string]int{}
	var known []string
	for i, s := range g.Services {
		names.take(s.Name, "", at.with(index(i), "name"))
		if _, ok := byName[s.Name]; !ok {
			byName[s.Name] = i
			if ValidName(s.Name) {
				known = append(known, s.Name)
			}
		}
	}
	for i, s := range g.Services {
		for j, need := range s.Requires {
			if _, ok := byName[need]; !ok {
				r.wrong(at.with(index(i), "requires", index(j)), "there is no service "+quote(need)+" in this group", r.adviseName(need, known))
			}
		}
	}

	// Depth first, with a stack of its own: the file chooses the depth.
	const open, done = 1, 2 // 0: not seen yet
	state := make([]int, len(g.Services))
	next := make([]int, len(g.Services)) // requirement to look at
	for start := range g.Services {
		stack := []int{start}
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			if state[i] == done || next[i] == len(g.Services[i].Requires) {
				state[i] = done
				stack = stack[:len(stack)-1]
				continue
			}
			state[i] = open
			need, ok := byName[g.Services[i].Requires[next[i]]]
			next[i]++
			switch {
			case !ok || state[need] == done:
			case state[need] == open:
				var round []string
				for _, k := range stack[slices.Index(stack, need):] {
					round = append(round, g.Services[k].Name)
				}
				if len(round) > maxListed {
					round = append(round[:maxListed], "…")
				}
				r.wrong(at.with(index(i), "requires"), "the services wait for each other: "+strings.Join(append(round, g.Services[need].Name), " → "),
					"remove one of the requirements")
			default:
				stack = append(stack, need)
			}
		}
	}
}
