package conf

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// reservedName cannot name a resource: commands take it for every resource.
const reservedName = "all"

// maxRate is faster than anything that has a max-rate, in bytes a second.
const maxRate = 1 << 50

func (r *reader) resource(t *table, c *Config) *Resource {
	res := &Resource{
		Name:            t.at[len(t.at)-1],
		Replication:     choice(t, "replication", FullSync, FullSync, MemSync, Async),
		Provider:        choice(t, "provider", ProviderAuto, ProviderAuto, ProviderUblk, ProviderNBD, ProviderFUSE, ProviderNBDServer),
		ExtentSize:      t.size("extent-size", 2<<20, MinExtentSize, MaxExtentSize),
		KeepDirty:       t.integer("keepdirty", 256, MinKeepDirty, MaxKeepDirty),
		Checksum:        choice(t, "checksum", ChecksumNone, ChecksumNone, ChecksumCRC32C, ChecksumXXH3, ChecksumSHA256),
		Compression:     choice(t, "compression", CompressionHole, CompressionNone, CompressionHole, CompressionLZ4, CompressionZstd),
		TLS:             t.boolean("tls", false),
		Timeout:         t.duration("timeout", 20*time.Second, minTimeout, maxTimeout),
		DiskTimeout:     t.duration("disk-timeout", 30*time.Second, minTimeout, maxTimeout),
		StartAs:         choice(t, "start-as", StartInit, StartInit, StartSecondary),
		AfterSplitBrain: splitBrain(t, "after-split-brain"),
		OnPeerLoss:      choice(t, "on-peer-loss", PeerLossContinue, PeerLossContinue, PeerLossSuspend),
	}
	if res.Name == reservedName {
		r.wrong(t.at, quote(res.Name)+" cannot be the name of a resource: commands take it for all of them", "choose another name")
	}
	if res.ExtentSize&(res.ExtentSize-1) != 0 {
		t.wrong("extent-size", quote(FormatSize(res.ExtentSize))+" is not a power of two", `write one such as "2MiB"`)
	}
	s := t.table("sync")
	res.Sync = Sync{
		MaxRate:         s.size("max-rate", 0, 0, maxRate),
		LatencyTarget:   s.duration("latency-target", 20*time.Millisecond, 100*time.Microsecond, time.Minute),
		VerifyAfterSync: choice(s, "verify-after-sync", VerifyNone, VerifyNone, VerifySample, VerifyAll),
	}
	if text := s.text("verify-schedule", "", "0 3 * * sun"); text != "" {
		sched, err := ParseSchedule(text)
		if err != nil {
			s.wrong("verify-schedule", quote(text)+": "+err.Error(),
				`write minute, hour, day, month and weekday, such as "0 3 * * sun" for Sundays at three`)
		}
		res.Sync.VerifySchedule = sched
	}
	s.done()

	metadata := metadataPath(t, "metadata", MetadataInternal)
	ons := t.named("on", "node")
	var parts []Component
	for _, on := range ons {
		parts = append(parts, component(on, res, metadata))
	}
	if len(ons) != len(res.On) && len(t.table("on").m) == len(ons) && r.sound(t.at.with("on")) {
		r.wrong(t.at.with("on"), fmt.Sprintf("the resource is on %s, and must be on two", count(len(ons), "node", "nodes")),
			fmt.Sprintf("write [%s] and [%s]", t.at.with("on", "NODE1"), t.at.with("on", "NODE2")))
	}
	// The lower id first. Unknown nodes go last; they are reported by check.
	id := func(p Component) int {
		if n := c.node(p.Node); n != nil {
			return n.ID
		}
		return maxNodeID + 1
	}
	slices.SortStableFunc(parts, func(a, b Component) int { return id(a) - id(b) })
	copy(res.On[:], parts)
	t.done()
	return res
}

func component(t *table, res *Resource, metadata string) Component {
	p := Component{
		Node:     t.at[len(t.at)-1],
		Local:    t.file("local", "", "/dev/vg0/"+res.Name),
		Metadata: metadataPath(t, "metadata", metadata),
	}
	if _, isText := t.m["local"].(string); !t.has("local") || isText && p.Local == "" && t.m["local"] == "" {
		t.wrong("local", "is missing", "write the block device or file, such as local = "+quote("/dev/vg0/"+res.Name))
	}
	def := "/dev/hast/" + res.Name
	if res.Provider == ProviderNBDServer {
		def = "/run/hast/" + res.Name + ".nbd"
	}
	at := t.at.with("provider-path")
	switch s := t.text("provider-path", def, def); {
	case res.Provider != ProviderNBDServer:
		p.ProviderPath = t.file("provider-path", def, def)
	case strings.HasPrefix(s, "/"):
		p.ProviderPath = t.socket("provider-path", def)
	case validHostPort(s):
		p.ProviderPath = s
		if !strings.HasPrefix(s, "127.") && !strings.HasPrefix(s, "[::1]") && !res.TLS {
			t.r.warn(at, "whoever reaches "+quote(s)+" can read and write the device: NBD asks for no key")
		}
	default:
		t.wrong("provider-path", quote(s)+" is neither a path nor IP:PORT", "write "+quote(def)+` or, for TCP, "127.0.0.1:10809"`)
	}
	t.done()
	return p
}

func metadataPath(t *table, key, def string) string {
	const example = "/dev/vg0/data-meta"
	s := t.text(key, def, example)
	if s == def || s == MetadataInternal {
		return s
	}
	if why := badPath(s); why != "" {
		t.wrong(key, why, fmt.Sprintf("write %q or an absolute path, such as %q", MetadataInternal, example))
		return def
	}
	return filepath.Clean(s)
}

func splitBrain(t *table, key string) SplitBrainPolicy {
	policies := []SplitBrainKind{SplitBrainNone, SplitBrainZeroChanges, SplitBrainLeastChanges, SplitBrainOlder, SplitBrainNode + ":NAME"}
	s := t.text(key, string(SplitBrainNone), string(SplitBrainNone))
	if node, ok := strings.CutPrefix(s, string(SplitBrainNode)+":"); ok {
		return SplitBrainPolicy{Kind: SplitBrainNode, Node: node} // whether the node exists is judged by check
	}
	if i := slices.Index(policies, SplitBrainKind(s)); i >= 0 && policies[i] != SplitBrainNode+":NAME" {
		return SplitBrainPolicy{Kind: policies[i]}
	}
	advice := "write " + quoteAll(policies)
	if near, ok := nearest(s, policies); ok {
		advice = fmt.Sprintf("did you mean %q? The choices are %s", near, quoteAll(policies))
	}
	t.wrong(key, quote(s)+" is not a choice here", advice)
	return SplitBrainPolicy{Kind: SplitBrainNone}
}
