package conf

import (
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"
)

func mustLoad(t *testing.T, file string) *Config {
	t.Helper()
	c, err := Load(file)
	if err != nil {
		t.Fatalf("Load:\n%v", err)
	}
	return c
}

// equal compares part by part, so that a failure shows the part.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

var (
	defaultHastd = Hastd{Port: 8457, Control: "/run/hast/hastd.sock", State: "/var/lib/hast", HTTP: "127.0.0.1:9457"}
	defaultVipd  = Vipd{Control: "/run/hast/vipd.sock", State: "/var/lib/hast", HTTP: "127.0.0.1:9458",
		HastdTimeout: 5 * time.Second, HastdGrace: 20 * time.Second}
	defaultHeartbeat = Heartbeat{Port: 8458, Interval: 500 * time.Millisecond, Trouble: 1500 * time.Millisecond, Timeout: 3 * time.Second}
)

func addrs(s ...string) []netip.Addr {
	out := make([]netip.Addr, len(s))
	for i := range s {
		out[i] = netip.MustParseAddr(s[i])
	}
	return out
}

func defaultResource() *Resource {
	return &Resource{
		Name: "data", Replication: FullSync, Provider: ProviderAuto, ExtentSize: 2 << 20, KeepDirty: 256,
		Checksum: ChecksumNone, Compression: CompressionHole, Timeout: 20 * time.Second, DiskTimeout: 30 * time.Second,
		StartAs: StartInit, AfterSplitBrain: SplitBrainPolicy{Kind: SplitBrainNone}, OnPeerLoss: PeerLossContinue,
		Sync: Sync{LatencyTarget: 20 * time.Millisecond, VerifyAfterSync: VerifyNone},
		On: [2]Component{
			{Node: "alpha", Local: "/dev/vg0/data", Metadata: MetadataInternal, ProviderPath: "/dev/hast/data"},
			{Node: "bravo", Local: "/dev/vg0/data", Metadata: MetadataInternal, ProviderPath: "/dev/hast/data"},
		},
	}
}

func TestExampleMeansWhatItsCommentsSay(t *testing.T) {
	c := mustLoad(t, "example.toml")
	equal(t, "warnings", c.Warnings, []string(nil))
	equal(t, "cluster", c.Cluster, Cluster{
		Name: "ia74clus", KeyFile: "/etc/hast/cluster.key", Quorum: QuorumMajority,
		Lease: 3 * time.Second, Rejoin: 10 * time.Second, TOC: TOCOff,
		Watchdog: "/dev/watchdog", WatchdogTimeout: 5 * time.Second, Heartbeat: defaultHeartbeat,
	})
	equal(t, "hastd", c.Hastd, defaultHastd)
	equal(t, "vipd", c.Vipd, defaultVipd)
	equal(t, "nodes", c.Nodes, []*Node{
		{Name: "alpha", ID: 0, Addresses: addrs("10.0.0.1", "10.1.0.1"), Serial: "/dev/ttyS1", hastd: defaultHastd, vipd: defaultVipd},
		{Name: "bravo", ID: 1, Addresses: addrs("10.0.0.2", "10.1.0.2"), Serial: "/dev/ttyS1", hastd: defaultHastd, vipd: defaultVipd},
		{Name: "charlie", ID: 2, Addresses: addrs("10.0.0.3", "10.1.0.3"), Witness: true, hastd: defaultHastd, vipd: defaultVipd},
	})
	equal(t, "resources", c.Resources, []*Resource{defaultResource()})
	equal(t, "groups", c.Groups, []*Group{{
		Name: "data", Nodes: []string{"alpha", "bravo"}, Resources: []string{"data"}, Election: ElectionCARP, VHID: 1,
		PassFile: "/etc/hast/carp.pass", AdvBase: 1, AdvSkew: map[string]int{"alpha": 0, "bravo": 100}, DeadRatio: 3,
		AdvertInterval: time.Second, StartDelay: 5 * time.Second, Interfaces: []string{"eth0", "eth2"},
		Addresses: []Address{
			{CIDR: netip.MustParsePrefix("192.0.2.10/24")},
			{Name: "ip1", CIDR: netip.MustParsePrefix("2001:db8::10/64")},
		},
		Mounts: []Mount{{Device: "/dev/hast/data", Dir: "/srv/data", Type: "ext4", Options: "noatime"}},
		Services: []Service{{
			Name: "app", Start: []string{"/usr/bin/systemctl", "start", "app"}, Stop: []string{"/usr/bin/systemctl", "stop", "app"},
			Monitor: []string{"/usr/lib/hast/monitor-app"}, Critical: true, Interval: 10 * time.Second,
			StartTimeout: time.Minute, StopTimeout: time.Minute, MonitorTimeout: 30 * time.Second,
			RestartLimit: 3, RestartReset: 10 * time.Minute,
		}},
	}})
}

// The values of the example are the defaults: taking away every key that has
// one must not change what the file means.
func TestDefaultsAreThoseOfTheExample(t *testing.T) {
	short := `
[cluster]
name = "ia74clus"
key-file = "/etc/hast/cluster.key"
quorum = "majority"
[node]
alpha = { id = 0, address = ["10.0.0.1", "10.1.0.1"], serial = "/dev/ttyS1" }
bravo = { id = 1, address = ["10.0.0.2", "10.1.0.2"], serial = "/dev/ttyS1" }
charlie = { id = 2, address = ["10.0.0.3", "10.1.0.3"], witness = true }
[resource.data.on]
bravo = { local = "/dev/vg0/data" }
alpha = { local = "/dev/vg0/data" }
[group.data]
nodes = ["alpha", "bravo"]
resources = ["data"]
interfaces = ["eth0", "eth2"]
address    = ["192.0.2.10/24", { name = "ip1", cidr = "2001:db8::10/64" }]
mount = [{ device = "/dev/hast/data", dir = "/srv/data" }]
[[group.data.service]]
name = "app"
start = ["/usr/bin/systemctl", "start", "app"]
stop = ["/usr/bin/systemctl", "stop", "app"]
monitor = ["/usr/lib/hast/monitor-app"]
`
	c, err := Parse("example.toml", []byte(short))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "configuration", c, mustLoad(t, "example.toml"))
}

func TestMinimal(t *testing.T) {
	c := mustLoad(t, "minimal.toml")
	equal(t, "cluster", c.Cluster, Cluster{
		Name: "demo", Insecure: true, Quorum: QuorumOff, Lease: 3 * time.Second, Rejoin: 10 * time.Second, TOC: TOCOff,
		Watchdog: "/dev/watchdog", WatchdogTimeout: 5 * time.Second, Heartbeat: defaultHeartbeat,
	})
	equal(t, "resources", c.Resources, []*Resource{defaultResource()})
	equal(t, "warnings", c.Warnings, []string{
		`minimal.toml:6: cluster.insecure: there is no cluster key: anyone who reaches the port can take part; "hastctl keygen" makes one`})
	if st, _ := os.Stat("minimal.toml"); st.Size() > 600 {
		t.Errorf("the minimal configuration has grown to %d bytes", st.Size())
	}
}
