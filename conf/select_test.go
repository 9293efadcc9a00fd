package conf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestSelfByFlagAndHostName(t *testing.T) {
	c := mustLoad(t, "example.toml")
	for _, host := range []string{"bravo", "bravo.example.com"} {
		if n, err := c.selfByHost(host); err != nil || n.Name != "bravo" {
			t.Errorf("host %s: %v, %v", host, n, err)
		}
	}
	if n, err := c.Self("charlie"); err != nil || n.Name != "charlie" {
		t.Errorf("--node charlie: %v, %v", n, err)
	}
	_, err := c.Self("brvo")
	var unknown *UnknownError
	if !errors.As(err, &unknown) || err.Error() != `there is no node "brvo" in the configuration; did you mean "bravo"?` {
		t.Errorf("--node brvo: %v", err)
	}
	_, err = c.selfByHost("db7.example.com")
	want := `this host is called "db7.example.com", and no node is; name its node with --node (alpha, bravo, charlie), or add [node.db7] to example.toml`
	if err == nil || err.Error() != want {
		t.Errorf("strange host:\n got %v\nwant %s", err, want)
	}
}

func TestPeerAndResourceOn(t *testing.T) {
	c := mustLoad(t, "example.toml")
	for self, want := range map[string]string{"alpha": "bravo", "bravo": "alpha"} {
		if p, err := c.Peer("data", self); err != nil || p.Name != want {
			t.Errorf("peer of %s: %v, %v", self, p, err)
		}
		if rs := c.ResourceOn(self); len(rs) != 1 || rs[0].Name != "data" {
			t.Errorf("resources on %s: %v", self, rs)
		}
	}
	if _, err := c.Peer("data", "charlie"); err == nil || !strings.Contains(err.Error(), "not on") {
		t.Errorf("peer of the witness: %v", err)
	}
	if _, err := c.Peer("dta", "alpha"); err == nil || !strings.Contains(err.Error(), `did you mean "data"?`) {
		t.Errorf("unknown resource: %v", err)
	}
	if rs := c.ResourceOn("charlie"); rs != nil {
		t.Errorf("resources on the witness: %v", rs)
	}
}

const overrides = `
[cluster]
name = "c"
insecure = true
[hastd]
port = 9000
http = ""
[node.a]
id = 5
address = ["127.0.0.1"]
hastd.port = 9001
hastd.control = "/tmp/a/hastd.sock"
vipd.hastd-grace = "1m"
[node.b]
id = 2
address = ["127.0.0.2"]
[node.b.hastd]
http = "[::1]:9999"
exec = "/usr/lib/hast/hook"
[resource.r]
provider = "nbd-server"
metadata = "/meta"
on.a = { local = "/a", metadata = "internal", provider-path = "127.0.0.1:10809" }
on.b = { local = "/b" }
[resource.r.sync]
max-rate = "1GiB"
verify-schedule = "0 3 * * sun"
`

func TestOverridesOfOneNode(t *testing.T) {
	c, err := Parse("o.toml", []byte(overrides))
	if err != nil {
		t.Fatal(err)
	}
	hastd, vipd := defaultHastd, defaultVipd
	hastd.Port, hastd.HTTP = 9000, ""
	equal(t, "general", c.Hastd, hastd)

	a, b := c.node("a"), c.node("b")
	equal(t, "order by id", c.Nodes, []*Node{b, a})
	h, v := c.Effective(a)
	ha, va := hastd, vipd
	ha.Port, ha.Control, va.HastdGrace = 9001, "/tmp/a/hastd.sock", 60e9
	equal(t, "hastd of a", h, ha)
	equal(t, "vipd of a", v, va)
	h, v = c.Effective(b)
	hb := hastd
	hb.HTTP, hb.Exec = "[::1]:9999", "/usr/lib/hast/hook"
	equal(t, "hastd of b", h, hb)
	equal(t, "vipd of b", v, vipd)

	r := c.Resources[0]
	equal(t, "components", r.On, [2]Component{
		{Node: "b", Local: "/b", Metadata: "/meta", ProviderPath: "/run/hast/r.nbd"},
		{Node: "a", Local: "/a", Metadata: MetadataInternal, ProviderPath: "127.0.0.1:10809"},
	})
	equal(t, "rate", r.Sync.MaxRate, int64(1<<30))
	equal(t, "schedule", r.Sync.VerifySchedule.String(), "0 3 * * sun")
}

func TestWarnings(t *testing.T) {
	text := strings.Replace(overrides, "127.0.0.1:10809", "0.0.0.0:10809", 1)
	text = strings.Replace(text, "insecure = true", "insecure = true\nkey-file = '/k'", 1)
	c, err := Parse("w.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "warnings", c.Warnings, []string{
		`w.toml:14: node.a.vipd.hastd-grace: "1m" has no effect: no provider of this build holds requests until hastd is back`,
		`w.toml:24: resource.r.on.a.provider-path: whoever reaches "0.0.0.0:10809" can read and write the device: NBD asks for no key`,
		`w.toml:4: cluster.insecure: has no effect, because key-file is set`,
		`w.toml:28: resource.r.sync.verify-schedule: "0 3 * * sun" is not in this build: it has no effect`,
	})
	c, err = Parse("w.toml", []byte("cluster = { name = 'c', key-file = '/k' }\nnode.a = { id = 0, address = ['::1'] }"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "warnings", c.Warnings, []string{"w.toml: there is neither a resource nor a group: the daemons will have nothing to do"})
}

// An election that is over before the heartbeats know is warned of, where there are links
// to lose one by one.
func TestHastyElection(t *testing.T) {
	const text = `
cluster = { name = "c", key-file = "/k", heartbeat = { trouble = "900ms" } }
node.a = { id = 1, address = ["10.0.0.1", "10.1.0.1"], serial = "/dev/ttyS0" }
node.b = { id = 2, address = ["10.0.0.2", "10.1.0.2"], serial = "/dev/ttyS0" }
[group.g]
nodes = ["a", "b"]
interfaces = ["eth0"]
election = "vrrp"
advert-interval = "300ms"
`
	const hasty = `w.toml:9: group.g.advert-interval: another node takes the group over after "900ms", before a link is in trouble (cluster.heartbeat.trouble = "900ms"): it does so, too, if the last of several links is lost and nobody can tell what the node with the group does`
	for _, c := range []struct {
		change []string
		want   []string
	}{
		{nil, []string{hasty}},
		{[]string{"900ms", "890ms"}, nil},
		{[]string{`"vrrp"`, `"carp"`}, nil},
		{[]string{`"vrrp"`, `"external"`}, nil},
		{[]string{`name = "c"`, `name = "c", quorum = "majority"`}, nil},
		{[]string{`, "10.1.0.2"`, ""}, []string{hasty}}, // the line is left
		{[]string{`, "10.1.0.2"`, "", `, serial = "/dev/ttyS0"`, ""}, nil},
	} {
		cf, err := Parse("w.toml", []byte(strings.NewReplacer(c.change...).Replace(text)))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, strings.Join(c.change, " → "), cf.Warnings, c.want)
	}
}

func TestSharedPart(t *testing.T) {
	text := func(old, new string) string {
		t.Helper()
		s := strings.Replace(overrides, old, new, 1)
		if s == overrides {
			t.Fatalf("%q is not in the text", old)
		}
		return s
	}
	parse := func(s string) map[string]string {
		t.Helper()
		c, err := Parse("s.toml", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c.SharedHash()
	}
	base := parse(overrides)
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", overrides, ""},
		{"local component", text(`local = "/a"`, `local = "/x"`), ""},
		{"control socket", text("/tmp/a/hastd.sock", "/tmp/hastd.sock"), ""},
		{"mode", text(`[resource.r]`, "[resource.r]\nreplication = \"async\""), "resource.r.replication"},
		{"address and port", strings.Replace(text("127.0.0.2", "127.0.0.3"), "9001", "9002", 1), "node.a.hastd.port node.b.address"},
		{"cluster", text(`"c"`, `"d"`), "cluster.name"},
	} {
		got := parse(tc.text)
		if diff := strings.Join(DiffShared(base, got), " "); diff != tc.want {
			t.Errorf("%s: differs in %q, want %q", tc.name, diff, tc.want)
		}
		if same := DigestShared(base) == DigestShared(got); same != (tc.want == "") {
			t.Errorf("%s: digests equal: %v", tc.name, same)
		}
	}

	c := mustLoad(t, "example.toml")
	all, one := c.SharedHash(), c.SharedHashOf("data")
	for _, k := range DiffShared(all, one) {
		if !strings.HasPrefix(k, "group.") && !strings.HasPrefix(k, "node.charlie.") {
			t.Errorf("%s is missing in the part of a resource", k)
		}
	}
	many := *c
	for i := len(c.Nodes); i < 64; i++ {
		n := *c.Nodes[0]
		n.Name = fmt.Sprint("node", i)
		many.Nodes = append(many.Nodes, &n)
	}
	if n := len(many.SharedHashOf("data")); n > 64 {
		t.Errorf("%d keys: the handshake has room for 64", n)
	}
	for k, v := range all {
		if len(v) > maxShared {
			t.Errorf("%s is %d bytes long", k, len(v))
		}
	}
	delete(one, "cluster.quorum")
	if d := DiffShared(one, c.SharedHashOf("data")); len(d) != 1 || d[0] != "cluster.quorum" {
		t.Errorf("a key of one side only: %v", d)
	}
}
