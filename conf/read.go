package conf

import (
	"slices"
	"time"
)

// maxNodeID keeps a set of nodes within 64 bits.
const maxNodeID = 63

// Bounds of time spans. The lower ones keep a mistyped unit from making a
// cluster that flaps, the upper ones from making one that never decides.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = time.Hour
	maxDelay   = 24 * time.Hour
)

const hastdGrace = 20 * time.Second // default of [vipd] hastd-grace

// config reads the whole file.
func (r *reader) config(t *table) *Config {
	c := &Config{File: r.file}
	c.Cluster = readCluster(t.table("cluster"))
	c.Hastd = readHastd(t.table("hastd"), Hastd{
		Port: 8457, Control: "/run/hast/hastd.sock", State: "/var/lib/hast", HTTP: "127.0.0.1:9457",
	})
	c.Vipd = readVipd(t.table("vipd"), Vipd{
		Control: "/run/hast/vipd.sock", State: "/var/lib/hast", HTTP: "127.0.0.1:9458",
		HastdTimeout: 5 * time.Second, HastdGrace: hastdGrace,
	})
	for _, n := range t.named("node", "node") {
		c.Nodes = append(c.Nodes, readNode(n, c.Hastd, c.Vipd))
	}
	slices.SortStableFunc(c.Nodes, func(a, b *Node) int { return a.ID - b.ID })
	for _, res := range t.named("resource", "resource") {
		c.Resources = append(c.Resources, r.resource(res, c))
	}
	for _, g := range t.named("group", "group") {
		c.Groups = append(c.Groups, readGroup(g))
	}
	t.done()
	return c
}

func readCluster(t *table) Cluster {
	c := Cluster{
		Name:            t.text("name", "", "mycluster"),
		KeyFile:         t.file("key-file", "", "/etc/hast/cluster.key"),
		Insecure:        t.boolean("insecure", false),
		Quorum:          choice(t, "quorum", QuorumOff, QuorumOff, QuorumMajority),
		Lease:           t.duration("lease", 3*time.Second, minTimeout, maxTimeout),
		Rejoin:          t.duration("rejoin", 10*time.Second, minTimeout, maxTimeout),
		TOC:             choice(t, "toc", TOCOff, TOCOff, TOCReset, TOCCrash),
		Watchdog:        t.file("watchdog", "/dev/watchdog", "/dev/watchdog"),
		WatchdogTimeout: t.duration("watchdog-timeout", 5*time.Second, time.Second, maxTimeout),
	}
	t.missing("name", `write name = "..." in [cluster]; it is bound into every handshake`)
	if t.has("name") && !ValidName(c.Name) && typeName(t.m["name"]) == "a text" {
		t.wrong("name", quote(c.Name)+" cannot be the name of a cluster", nameAdvice)
	}
	if c.WatchdogTimeout%time.Second != 0 {
		t.wrong("watchdog-timeout", quote(FormatDuration(c.WatchdogTimeout))+" is not a whole number of seconds",
			`the kernel's watchdog counts in seconds: write one such as "5s"`)
	}
	h := t.table("heartbeat")
	c.Heartbeat = Heartbeat{
		Port:     h.integer("port", 8458, 1, 65535),
		Interval: h.duration("interval", 500*time.Millisecond, 10*time.Millisecond, time.Minute),
		Trouble:  h.duration("trouble", 1500*time.Millisecond, 20*time.Millisecond, maxTimeout),
		Timeout:  h.duration("timeout", 3*time.Second, 30*time.Millisecond, maxTimeout),
	}
	h.done()
	t.done()
	return c
}

// readHastd reads [hastd], or over its values those of one node.
func readHastd(t *table, base Hastd) Hastd {
	h := Hastd{
		Port:    t.integer("port", base.Port, 1, 65535),
		Control: t.socket("control", base.Control),
		State:   t.file("state", base.State, base.State),
		HTTP:    t.hostPort("http", base.HTTP),
	}
	h.Exec = t.text("exec", base.Exec, "/usr/lib/hast/hook")
	if h.Exec != "" {
		h.Exec = t.file("exec", base.Exec, "/usr/lib/hast/hook")
	}
	t.done()
	return h
}

// readVipd reads [vipd], or over its values those of one node.
func readVipd(t *table, base Vipd) Vipd {
	v := Vipd{
		Control:      t.socket("control", base.Control),
		State:        t.file("state", base.State, base.State),
		HTTP:         t.hostPort("http", base.HTTP),
		HastdTimeout: t.duration("hastd-timeout", base.HastdTimeout, minTimeout, maxTimeout),
		HastdGrace:   t.duration("hastd-grace", base.HastdGrace, minTimeout, maxTimeout),
	}
	if t.has("hastd-grace") && v.HastdGrace != hastdGrace {
		t.r.warn(t.at.with("hastd-grace"), quote(FormatDuration(v.HastdGrace))+" has no effect: no provider of this build holds requests until hastd is back")
	}
	t.done()
	return v
}

func readNode(t *table, hastd Hastd, vipd Vipd) *Node {
	n := &Node{
		Name:    t.at[len(t.at)-1],
		ID:      t.integer("id", 0, 0, maxNodeID),
		Serial:  t.file("serial", "", "/dev/ttyS1"),
		Witness: t.boolean("witness", false),
	}
	t.missing("id", "write id = 0 on one node, id = 1 on the next; the lowest leads in a tie")
	for _, it := range t.items("address", `"10.0.0.1"`) {
		a, problem, advice := nodeAddress(it.text)
		if problem != "" {
			t.r.wrong(it.at, problem, advice)
		}
		n.Addresses = append(n.Addresses, a)
	}
	if !t.has("address") || t.isEmptyList("address") {
		t.wrong("address", "is missing", `write address = ["10.0.0.1"] with this node's address on each link`)
	}
	n.hastd = readHastd(t.table("hastd"), hastd)
	n.vipd = readVipd(t.table("vipd"), vipd)
	t.done()
	return n
}
