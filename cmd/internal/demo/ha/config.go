package ha

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// Of the election, as configured.
const (
	advbase   = 1
	deadratio = 3
	bravoSkew = 50
)

// group and resource have one name.
const group = "story"

// deviceSize is that of the mirrored device.
const deviceSize = "64MiB"

// silence is how long a node of an advskew hears nothing of a master before it
// takes the place: the bound of a pause, to which comes what starting takes.
func silence(skew int) time.Duration {
	return deadratio * (advbase*time.Second + time.Duration(skew)*time.Second/256)
}

// prepare makes the places and writes what both nodes are configured with.
func (d *demo) prepare(ctx context.Context) error {
	d.net = &network{hastctl: d.Hastctl, dir: d.dir}
	if err := d.net.build(ctx); err != nil {
		return err
	}
	for i, name := range []string{"alpha", "bravo"} {
		n := &node{name: name, skew: i * bravoSkew, dir: d.path(name), d: d}
		d.nodes[i] = n
		for _, dir := range []string{n.path("run"), n.path("srv")} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}
		if err := os.WriteFile(n.path(nameFile), []byte(name), 0o600); err != nil {
			return err
		}
	}
	// Paths that are the same in the shared file must lead each node to its own.
	if err := os.Mkdir(d.path(here), 0o700); err != nil {
		return err
	}
	for _, n := range d.nodes {
		if err := d.net.run(ctx, n.name, "mount", "--bind", n.dir, d.path(here)); err != nil {
			return err
		}
	}
	pass := make([]byte, 16)
	rand.Read(pass)
	if err := os.WriteFile(d.path("carp.pass"), []byte(hex.EncodeToString(pass)+"\n"), 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(d.path("hast.toml"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(configText.Execute(f, d), f.Close()); err != nil {
		return err
	}
	for _, args := range [][]string{{"keygen"}, {"check"}} {
		if _, err := d.alpha().quiet(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// here is the folder that is a node's own on each node.
const here = "here"

// For the template.

func (d *demo) Nodes() []*node          { return d.nodes[:] }
func (d *demo) Path(name string) string { return d.path(name) }
func (d *demo) Here(name string) string { return filepath.Join(d.path(here), name) }
func (d *demo) Group() string           { return group }
func (d *demo) Service() string         { return serviceAddress + "/24" }
func (d *demo) Program() string         { return d.Options.Hastctl }
func (n *node) Name() string            { return n.name }
func (n *node) Skew() int               { return n.skew }
func (n *node) Path(name string) string { return n.path(name) }
func (n *node) ID() int                 { return n.index() }
func (n *node) Addresses() [2]string {
	return [2]string{directAddress(n.index()), lanAddress(n.index(), 0)}
}
func quoted(v any) string { return fmt.Sprintf("%q", v) }

var configText = template.Must(template.New("").Funcs(template.FuncMap{"q": quoted}).Parse(`# Made by hastctl demo ha: two nodes on one machine.
[cluster]
name     = "story"
key-file = {{q (.Path "cluster.key")}}

[hastd]
http = ""

[vipd]
http = ""
{{range .Nodes}}
[node.{{.Name}}]
id            = {{.ID}}
address       = ["{{index .Addresses 0}}", "{{index .Addresses 1}}"]
hastd.control = {{q (.Path "run/hastd.sock")}}
hastd.state   = {{q (.Path "state")}}
vipd.control  = {{q (.Path "run/vipd.sock")}}
vipd.state    = {{q (.Path "state")}}
{{end}}
[resource.{{.Group}}]
provider = "fuse"
timeout  = "5s"
{{range .Nodes}}
[resource.{{$.Group}}.on.{{.Name}}]
local         = {{q (.Path "disk")}}
provider-path = {{q (.Path "device")}}
{{end}}
[group.{{.Group}}]
nodes       = ["alpha", "bravo"]
resources   = ["{{.Group}}"]
election    = "carp"
pass-file   = {{q (.Path "carp.pass")}}
advbase     = 1
advskew     = { {{range $i, $n := .Nodes}}{{if $i}}, {{end}}{{$n.Name}} = {{$n.Skew}}{{end}} }
deadratio   = 3
start-delay = "1s"
interfaces  = ["eth0", "eth1"]
address     = ["{{.Service}}"]

[[group.{{.Group}}.mount]]
device = {{q (.Here "device")}}
dir    = {{q (.Here "srv")}}
type   = "ext4"

[[group.{{.Group}}.service]]
name         = "store"
start        = [{{q .Program}}, "demo", "ha", "store", "start", {{q (.Path "here")}}]
stop         = [{{q .Program}}, "demo", "ha", "store", "stop", {{q (.Path "here")}}]
monitor      = [{{q .Program}}, "demo", "ha", "store", "monitor", {{q (.Path "here")}}]
interval     = "1s"
stop-timeout = "10s"
`))
