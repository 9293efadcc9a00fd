package conf

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxShared is the longest value that the shared part shows as it is; a longer
// one is replaced by its hash, so that a handshake stays small.
const maxShared = 48 // bytes

// hashLength is the length of such a hash, and of a digest, in hexadecimal
// digits.
const hashLength = 16

// SharedHash gives everything that must be the same on all nodes: a dotted key
// and a short form of its value. Peers exchange it (or its digest) and tell a
// difference by key. What concerns one node only is not in it: paths, sockets,
// local devices, the role at start, the pace of its own sync.
func (c *Config) SharedHash() map[string]string {
	s := c.sharedCluster(func(*Node) bool { return true })
	for _, r := range c.Resources {
		s.resource(r)
	}
	for _, g := range c.Groups {
		s.group(g)
	}
	return s
}

// SharedHashOf is the part of SharedHash that the handshake of one resource
// needs: the cluster, the resource and its two nodes. Its size does not grow with
// the number of nodes, resources and groups: the handshake has room for 64 keys.
func (c *Config) SharedHashOf(resource string) map[string]string {
	r := c.resource(resource)
	s := c.sharedCluster(func(n *Node) bool {
		if r == nil {
			return false
		}
		_, on := r.OnNode(n.Name)
		return on
	})
	if r != nil {
		s.resource(r)
	}
	return s
}

// DiffShared names the keys that differ between two shared parts, sorted; a key
// that only one side has counts as different.
func DiffShared(a, b map[string]string) []string {
	var diff []string
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			diff = append(diff, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			diff = append(diff, k)
		}
	}
	slices.Sort(diff)
	return diff
}

// DigestShared gives one short hash of a shared part, for messages that have no
// room for all of it.
func DigestShared(shared map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(shared)) {
		fmt.Fprintf(&b, "%q=%q\n", k, shared[k])
	}
	return shortHash(b.String())
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:hashLength]
}

type shared map[string]string

func (s shared) set(key string, value any) {
	v := fmt.Sprint(value)
	if len(v) > maxShared {
		v = "sha256:" + shortHash(v)
	}
	s[key] = v
}

func (c *Config) sharedCluster(of func(*Node) bool) shared {
	s, cl := shared{}, c.Cluster
	s.set("cluster.name", cl.Name)
	s.set("cluster.quorum", cl.Quorum)
	s.set("cluster.lease", cl.Lease)
	s.set("cluster.rejoin", cl.Rejoin)
	// The winner of a race waits as long as the loser's reset may take.
	s.set("cluster.toc", cl.TOC)
	s.set("cluster.watchdog-timeout", cl.WatchdogTimeout)
	s.set("cluster.heartbeat.port", cl.Heartbeat.Port)
	s.set("cluster.heartbeat.interval", cl.Heartbeat.Interval)
	s.set("cluster.heartbeat.trouble", cl.Heartbeat.Trouble)
	s.set("cluster.heartbeat.timeout", cl.Heartbeat.Timeout)
	for _, n := range c.Nodes {
		if !of(n) {
			continue
		}
		k := path{"node", n.Name}.String() + "."
		s.set(k+"id", n.ID)
		s.set(k+"address", n.Addresses)
		s.set(k+"witness", n.Witness)
		s.set(k+"hastd.port", n.hastd.Port) // where the others connect to
	}
	return s
}

func (s shared) resource(r *Resource) {
	k := path{"resource", r.Name}.String() + "."
	s.set(k+"on", r.On[0].Node+" "+r.On[1].Node)
	s.set(k+"replication", r.Replication)
	s.set(k+"extent-size", r.ExtentSize)
	s.set(k+"checksum", r.Checksum)
	s.set(k+"compression", r.Compression)
	s.set(k+"tls", r.TLS)
	s.set(k+"timeout", r.Timeout)
	s.set(k+"after-split-brain", r.AfterSplitBrain)
	s.set(k+"on-peer-loss", r.OnPeerLoss)
	s.set(k+"sync.verify-after-sync", r.Sync.VerifyAfterSync)
}

func (s shared) group(g *Group) {
	k := path{"group", g.Name}.String() + "."
	s.set(k+"nodes", g.Nodes)
	s.set(k+"resources", g.Resources)
	s.set(k+"parallel", g.Parallel)
	s.set(k+"failfast", g.Failfast)
	s.set(k+"election", g.Election)
	s.set(k+"vhid", g.VHID)
	s.set(k+"advbase", g.AdvBase)
	s.set(k+"advskew", g.AdvSkew) // fmt sorts the keys of a map
	s.set(k+"deadratio", g.DeadRatio)
	s.set(k+"advert-interval", g.AdvertInterval)
	s.set(k+"preempt", g.Preempt)
	s.set(k+"preempt-delay", g.PreemptDelay)
	s.set(k+"start-delay", g.StartDelay)
	s.set(k+"unicast", g.Unicast)
	s.set(k+"interfaces", fmt.Sprintf("%q", g.Interfaces))
	for i, a := range g.Addresses {
		s.set(fmt.Sprintf("%saddress[%d]", k, i), a.Name+" "+a.CIDR.String())
	}
	for i, m := range g.Mounts {
		s.set(fmt.Sprintf("%smount[%d]", k, i), fmt.Sprintf("%q", []string{m.Device, m.Dir, m.Type, m.Options}))
	}
	for _, v := range g.Services {
		k := k + path{"service", v.Name}.String() + "."
		s.set(k+"start", fmt.Sprintf("%q", v.Start))
		s.set(k+"stop", fmt.Sprintf("%q", v.Stop))
		s.set(k+"monitor", fmt.Sprintf("%q", v.Monitor))
		s.set(k+"requires", v.Requires)
		s.set(k+"critical", v.Critical)
		s.set(k+"limits", fmt.Sprint(v.Interval, v.StartTimeout, v.StopTimeout, v.MonitorTimeout, v.RestartLimit, v.RestartReset))
		s.set(k+"failfast", v.Failfast)
	}
}
