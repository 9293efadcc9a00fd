package lab

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Cluster is the cluster as a node's vipd tells it: the part that the lab looks at.
type Cluster struct {
	Quorum, Generation, Leader, Waits string
	LeaseLeftMS                       int64 `json:"lease_left_ms"`
	Joined                            bool
	Era                               struct{ How, By, Who string }
	Votes                             struct {
		Members, Needed, Heard int
		TieBreak               string `json:"tie_break"`
		Quorate                bool
	}
	Decision struct{ What, Why string }
	Nodes    []struct {
		Name, State, Reason string
		Heard               bool
		Hears               []string
		Links               []struct{ Name, State, Reason string }
	}
	Resources []struct {
		Name, Owner string
		InSync      []string `json:"in_sync"`
		Serves      bool
	}
}

// Cluster asks the node's controller.
func (n *Node) Cluster() (Cluster, error) {
	var c Cluster
	err := newAPI(n.VipdControl()).call(http.MethodGet, "/v1/cluster", 5*time.Second, nil, &c)
	return c, err
}

// Owner is who owns the lab's resource, as a node knows it, and who is in sync.
func (c Cluster) Owner() (string, []string) { return c.ownerOf(Resource) }

// Claim is who owns the lab's group, if that has no resources.
func (c Cluster) Claim() (string, []string) { return c.ownerOf("group/" + GroupName) }

func (c Cluster) ownerOf(name string) (string, []string) {
	for _, r := range c.Resources {
		if r.Name == name {
			return r.Owner, r.InSync
		}
	}
	return "", nil
}

// State is a node's state.
func (c Cluster) State(node string) string {
	for _, n := range c.Nodes {
		if n.Name == node {
			return n.State
		}
	}
	return ""
}

// WaitCluster waits until the cluster is as wanted, as the node knows it.
func (n *Node) WaitCluster(what string, limit time.Duration, ok func(Cluster) bool) (Cluster, error) {
	var last Cluster
	err := poll(limit, func() (bool, error) {
		c, err := n.Cluster()
		last = c
		return err == nil && ok(c), err
	})
	if err != nil {
		err = fmt.Errorf("lab: %v: waiting for %s: %w; it is %+v", n.Side, what, err, last)
	}
	return last, err
}

// bothInSync says whether the resource has an owner and two good replicas.
func bothInSync(c Cluster) bool {
	owner, in := c.Owner()
	return owner != "" && slices.Contains(in, "alpha") && slices.Contains(in, "bravo")
}
