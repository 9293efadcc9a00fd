package conf

import (
	"fmt"
	"os"
	"strings"
)

// UnknownError says that a name given to a method is not in the configuration.
type UnknownError struct {
	// What is "node" or "resource".
	What, Name string
	// Known are the names there are.
	Known []string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no %s %s in the configuration; %s", e.What, quote(e.Name), adviseName(e.Name, e.Known))
}

func (c *Config) node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (c *Config) resource(name string) *Resource {
	for _, r := range c.Resources {
		if r.Name == name {
			return r
		}
	}
	return nil
}

func (c *Config) nodeNames() []string {
	names := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		names[i] = n.Name
	}
	return names
}

// Node finds a node by name. The error is an *UnknownError.
func (c *Config) Node(name string) (*Node, error) {
	if n := c.node(name); n != nil {
		return n, nil
	}
	return nil, &UnknownError{"node", name, c.nodeNames()}
}

// Resource finds a resource by name. The error is an *UnknownError.
func (c *Config) Resource(name string) (*Resource, error) {
	if r := c.resource(name); r != nil {
		return r, nil
	}
	known := make([]string, len(c.Resources))
	for i, r := range c.Resources {
		known[i] = r.Name
	}
	return nil, &UnknownError{"resource", name, known}
}

// Self finds the node this host is: flagNode if it is not empty, else the one
// named like the host, with or without its domain.
func (c *Config) Self(flagNode string) (*Node, error) {
	if flagNode != "" {
		return c.Node(flagNode)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("the name of this host: %w; name its node with --node (%s)", err, strings.Join(c.nodeNames(), ", "))
	}
	return c.selfByHost(host)
}

func (c *Config) selfByHost(host string) (*Node, error) {
	short, _, _ := strings.Cut(host, ".")
	for _, name := range []string{host, short} {
		if n := c.node(name); n != nil {
			return n, nil
		}
	}
	return nil, fmt.Errorf("this host is called %s, and no node is; name its node with --node (%s), or add [node.%s] to %s",
		quote(host), strings.Join(c.nodeNames(), ", "), short, c.File)
}

// Peer gives the node that mirrors the resource with self. The error is an
// *UnknownError, or says that the resource is not on self.
func (c *Config) Peer(resource, self string) (*Node, error) {
	r, err := c.Resource(resource)
	if err != nil {
		return nil, err
	}
	switch self {
	case r.On[0].Node:
		return c.Node(r.On[1].Node)
	case r.On[1].Node:
		return c.Node(r.On[0].Node)
	}
	return nil, fmt.Errorf("resource %q is on %s and %s, not on %s", resource, r.On[0].Node, r.On[1].Node, quote(self))
}

// Effective gives the values of [hastd] and [vipd] in force on a node, its own
// ones over the general ones.
func (c *Config) Effective(n *Node) (Hastd, Vipd) { return n.hastd, n.vipd }

// ResourceOn gives the resources that the named node has a component of, in the
// order of the file.
func (c *Config) ResourceOn(node string) []*Resource {
	var on []*Resource
	for _, r := range c.Resources {
		if _, ok := r.OnNode(node); ok {
			on = append(on, r)
		}
	}
	return on
}
