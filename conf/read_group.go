package conf

import (
	"strings"
	"time"
	"unicode"
)

// maxInterfaceName is the kernel's IFNAMSIZ without the final zero.
const maxInterfaceName = 15

// maxRestarts bounds restart-limit.
const maxRestarts = 1000

func readGroup(t *table) *Group {
	g := &Group{
		Name:      t.at[len(t.at)-1],
		Nodes:     t.names("nodes", "alpha", "a node"),
		Resources: t.names("resources", "data", "a resource"),
		Parallel:  t.boolean("parallel", false),
		Failfast:  t.boolean("failfast", false),
		Election:  choice(t, "election", ElectionCARP, ElectionCARP, ElectionVRRP, ElectionExternal),
		VHID:      t.integer("vhid", 1, 1, 255),
		PassFile:  t.file("pass-file", "/etc/hast/carp.pass", "/etc/hast/carp.pass"),
		AdvBase:   t.integer("advbase", 1, 1, 254), // 255 is the bow-out
		DeadRatio: t.integer("deadratio", 3, 1, 255),
		// VRRP has twelve bits of centiseconds.
		AdvertInterval: t.duration("advert-interval", time.Second, 10*time.Millisecond, 40950*time.Millisecond),
		Preempt:        t.boolean("preempt", false),
		PreemptDelay:   t.duration("preempt-delay", 0, 0, maxDelay),
		StartDelay:     t.duration("start-delay", 5*time.Second, 0, maxDelay),
		Unicast:        t.boolean("unicast", false),
	}
	if !t.has("nodes") || t.isEmptyList("nodes") {
		t.wrong("nodes", "is missing", `write nodes = ["alpha", "bravo"] in order of preference`)
	}
	if g.AdvertInterval%(10*time.Millisecond) != 0 {
		t.wrong("advert-interval", quote(FormatDuration(g.AdvertInterval))+" is not a whole number of centiseconds",
			`VRRP counts in them: write a multiple of "10ms"`)
	}
	g.AdvSkew = advSkew(t, g.Nodes)
	g.Interfaces = t.distinct("interfaces", `"eth0"`, "an interface", `write a name as "ip link" shows it, such as "eth0"`, validInterface)
	g.Addresses = addresses(t)
	for _, m := range t.list("mount") {
		g.Mounts = append(g.Mounts, readMount(m))
	}
	for _, s := range t.list("service") {
		g.Services = append(g.Services, readService(s))
	}
	t.done()
	return g
}

// advSkew reads advskew = { NODE = N }; nodes without an entry get theirs from
// their place in the order of preference.
func advSkew(t *table, nodes []string) map[string]int {
	given := t.table("advskew")
	step := 100
	if len(nodes) > 1 {
		step = min(step, MaxAdvSkew/(len(nodes)-1))
	}
	skew := make(map[string]int, len(nodes))
	for i, n := range nodes {
		skew[n] = given.integer(n, i*step, 0, MaxAdvSkew)
	}
	for _, k := range given.order() {
		if _, ok := skew[k]; !ok {
			t.r.wrong(given.at.with(k), quote(k)+" is not a node of this group", t.r.adviseName(k, nodes))
		}
	}
	return skew
}

// validInterface follows the kernel's own rule for names.
func validInterface(n string) bool {
	return n != "" && len(n) <= maxInterfaceName && n != "." && n != ".." && !strings.ContainsAny(n, "/:") &&
		!strings.ContainsFunc(n, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

// addresses reads a list of "CIDR" and { name = "...", cidr = "CIDR" }.
func addresses(t *table) []Address {
	const example = `write address = ["192.0.2.10/24"] or, with a name, [{ name = "ip1", cidr = "192.0.2.10/24" }]`
	v, ok := t.get("address")
	if !ok {
		return nil
	}
	var elems []any
	switch v := v.(type) {
	case []any:
		elems = v
	case []map[string]any:
		for _, m := range v {
			elems = append(elems, m)
		}
	default:
		t.wrong("address", "must be a list, not "+typeName(v), example)
	}
	if t.tooMany("address", len(elems)) {
		return nil
	}
	var out []Address
	for i, e := range elems {
		at := t.at.with("address", index(i))
		var a Address
		var text string
		switch e := e.(type) {
		case string:
			text = e
		case map[string]any:
			sub := &table{r: t.r, at: at, kind: t.kind + ".address", m: e, present: true}
			a.Name = sub.text("name", "", "ip1")
			if sub.has("name") && !ValidName(a.Name) && typeName(e["name"]) == "a text" {
				sub.wrong("name", quote(a.Name)+" cannot be the name of an address", nameAdvice)
			}
			text = sub.text("cidr", "", "192.0.2.10/24")
			sub.missing("cidr", `write cidr = "192.0.2.10/24"`)
			sub.done()
			at = at.with("cidr")
			if _, isText := e["cidr"].(string); !isText {
				continue
			}
		default:
			t.r.wrong(at, "must be a text or a table, not "+typeName(e), example)
			continue
		}
		p, problem, advice := cidr(text)
		if problem != "" {
			t.r.wrong(at, problem, advice)
			continue
		}
		a.CIDR = p
		out = append(out, a)
	}
	return out
}

func readMount(t *table) Mount {
	m := Mount{
		Device:  t.file("device", "", "/dev/hast/data"),
		Dir:     t.file("dir", "", "/srv/data"),
		Type:    t.text("type", "ext4", "ext4"),
		Options: t.text("options", "noatime", "noatime"),
	}
	t.missing("device", `write the provider, such as device = "/dev/hast/data"`)
	t.missing("dir", `write the mount point, such as dir = "/srv/data"`)
	for _, k := range []string{"device", "dir"} {
		if t.m[k] == "" {
			t.wrong(k, "is empty", "write an absolute path")
		}
	}
	if m.Type == "" || strings.ContainsFunc(m.Type, unicode.IsSpace) {
		t.wrong("type", quote(m.Type)+" is not a type of filesystem", `write one such as "ext4"`)
	}
	t.done()
	return m
}

func readService(t *table) Service {
	s := Service{
		Name:           t.text("name", "", "app"),
		Start:          command(t, "start"),
		Stop:           command(t, "stop"),
		Monitor:        command(t, "monitor"),
		Requires:       t.names("requires", "db", "a service"),
		Critical:       t.boolean("critical", true),
		Interval:       t.duration("interval", 10*time.Second, minTimeout, maxDelay),
		StartTimeout:   t.duration("start-timeout", time.Minute, minTimeout, maxDelay),
		StopTimeout:    t.duration("stop-timeout", time.Minute, minTimeout, maxDelay),
		MonitorTimeout: t.duration("monitor-timeout", 30*time.Second, minTimeout, maxDelay),
		RestartLimit:   t.integer("restart-limit", 3, 0, maxRestarts),
		RestartReset:   t.duration("restart-reset", 10*time.Minute, time.Second, 30*24*time.Hour),
		Failfast:       t.boolean("failfast", false),
	}
	t.missing("name", `write name = "app"`)
	if v, ok := t.m["name"].(string); ok && !ValidName(v) {
		t.wrong("name", quote(v)+" cannot be the name of a service", nameAdvice)
	}
	t.missing("monitor", "write the program that exits 110 while the service is online and 100 while it is offline")
	switch {
	case t.has("start") && !t.has("stop"):
		t.wrong("stop", "is missing", "what is started must be stopped before another node may start it: write stop = [\"PROGRAM\"]")
	case t.has("stop") && !t.has("start"):
		t.wrong("start", "is missing", "write start = [\"PROGRAM\"], or remove stop for a dependency that is only watched")
	}
	t.done()
	return s
}

// command reads a program and its arguments.
func command(t *table, key string) []string {
	example := `"/usr/bin/systemctl", "` + key + `", "app"`
	if key == "monitor" {
		example = `"/usr/lib/hast/monitor-app"`
	}
	var out []string
	for i, it := range t.items(key, example) {
		if i == 0 && badPath(it.text) != "" {
			t.r.wrong(it.at, badPath(it.text), `write the program with its whole path, such as "/usr/bin/systemctl"`)
		}
		out = append(out, it.text)
	}
	if t.isEmptyList(key) {
		t.wrong(key, "is empty", "write the program and its arguments, each in quotes")
	}
	return out
}
