package lab

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"hastd/test/cable"
	"hastd/test/lab/disk"
)

// Options describe a lab. Zero values are filled in.
type Options struct {
	Dir         string // everything below it; must exist
	Programs    Programs
	Size        int64 // of each disk in bytes, metadata included; default 64 MiB
	Seed        uint64
	Replication string        // default "fullsync"
	Timeout     time.Duration // of the peer; default 2 s
	DiskTimeout time.Duration // default 10 s
	StartAs     string        // default "secondary", with a group "init"
	KeepDirty   int           // default 64
	ExtentSize  string        // default "256KiB"
	OnPeerLoss  string        // default "continue"
	Compression string        // default "none"
	Relay       bool          // a relay on loopback addresses instead of namespaces
	Plain       bool          // plain files as disks: no power loss, no faults, no root
	LogLevel    string        // default "debug"
	Env         []string      // for the daemons
	Extra       string        // more lines for the [resource.data] table
	Device      int64         // bytes of each disk of a second resource, served as a device; 0: none
	Group       bool          // a group of Resource, a service and an address, for vipd
	LAN         bool          // the nodes are plugged into a switch, beside a Client
	Election    string        // of the group: default "carp"
	Interval    time.Duration // between VRRP's adverts; default 100 ms
	Service     string        // address of the group; default ServiceAddress
	Also        string        // another address of the group
	Bare        bool          // the group has no address
	OnDevice    string        // what the group has on DeviceResource: "", "ext4" or "postgresql"
	Standby     bool          // a second interface in the LAN; replication has a cable of its own
	Majority    bool          // quorum = "majority"
	Witness     bool          // a third vipd, on the third host of the LAN
	TwoLinks    bool          // a second network between all three hosts, for heartbeats and replication
	Line        bool          // a serial line between the nodes
}

// Lab is two nodes with a link. Close it.
type Lab struct {
	o     Options
	net   Network
	Nodes [2]*Node
	third *witness     // nil: none
	line  *cable.Cable // nil: none
}

const port = 8457

// majorityLease is the lease with a majority, majorityMargin how much longer a promise
// lasts.
const (
	majorityLease  = 2 * time.Second
	majorityMargin = majorityLease/20 + 500*time.Millisecond
)

// New makes the network, the disks and the configurations. It starts no daemon.
func New(o Options) (*Lab, error) {
	def := func(v *string, to string) {
		if *v == "" {
			*v = to
		}
	}
	def(&o.Replication, "fullsync")
	if o.Group {
		def(&o.StartAs, "init")
	}
	def(&o.StartAs, "secondary")
	def(&o.ExtentSize, "256KiB")
	def(&o.OnPeerLoss, "continue")
	def(&o.Compression, "none")
	def(&o.LogLevel, "debug")
	def(&o.Election, "carp")
	def(&o.Service, ServiceAddress)
	if o.Size == 0 {
		o.Size = 64 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.DiskTimeout == 0 {
		o.DiskTimeout = 10 * time.Second
	}
	if o.KeepDirty == 0 {
		o.KeepDirty = 64
	}
	if o.Interval == 0 {
		o.Interval = 100 * time.Millisecond
	}
	l := &Lab{o: o}
	var err error
	switch {
	case o.Relay:
		l.net, err = NewRelay(port)
	case o.LAN:
		l.net, err = NewLAN(o.Standby)
		if err == nil && o.TwoLinks {
			err = l.net.(*LAN).addSecond()
		}
	default:
		l.net, err = NewNamespaces()
	}
	if err != nil {
		return nil, err
	}
	for s := range l.Nodes {
		n := &Node{Side: Side(s), lab: l, dir: filepath.Join(o.Dir, Side(s).String())}
		n.api = newAPI(n.Control())
		l.Nodes[s] = n
		if err := os.MkdirAll(n.path("state"), 0o700); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		if err := l.makeDisk(n); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if o.Line {
		if l.line, err = cable.New(o.Dir); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "cluster.key"), newKey(), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "carp.pass"), []byte("between nodes\n"), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	for _, n := range l.Nodes {
		if err := l.WriteConfig(n); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// newKey is a cluster key as `hastctl keygen` writes it.
func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails: it ends the process instead
	return []byte(base64.StdEncoding.EncodeToString(key) + "\n")
}

func (l *Lab) makeDisk(n *Node) error {
	if l.o.Plain {
		f, err := os.Create(n.path("disk.img"))
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(l.o.Size), f.Close())
	}
	var err error
	n.Disk, err = l.startDisk(n, "disk", disk.Options{Size: l.o.Size, Seed: l.o.Seed*2 + uint64(n.Side), KeepRandom: true})
	if err != nil || l.o.Device == 0 {
		return err
	}
	n.second, err = l.startDisk(n, "disk2", disk.Options{Size: l.o.Device, Seed: ^(l.o.Seed*2 + uint64(n.Side)), KeepRandom: true})
	return err
}

func (l *Lab) startDisk(n *Node, name string, o disk.Options) (*disk.Process, error) {
	log, err := os.Create(n.path(name + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return disk.Start(l.o.Programs.Labdisk, n.path(name), o, log)
}

var configText = template.Must(template.New("hast.toml").Parse(`# Two nodes of a lab.
[cluster]
name     = "lab"
key-file = "{{.Key}}"
{{if .O.Majority}}quorum = "majority"
lease  = "{{.Lease}}"
rejoin = "1s"
heartbeat = { interval = "250ms", trouble = "750ms", timeout = "1500ms" }
{{end}}
[hastd]
port  = {{.Port}}
http  = ""
exec  = ""
{{range .Nodes}}
[node.{{.Side}}]
id      = {{printf "%d" .Side}}
address = ["{{.Address}}"{{if $.O.TwoLinks}}, "{{.SecondLink}}"{{end}}]
{{if .Line}}serial = "{{.Line}}"
{{end}}hastd.control = "{{.Control}}"
hastd.state   = "{{.State}}"
vipd.control  = "{{.VipdControl}}"
vipd.state    = "{{.State}}"
vipd.http     = ""
{{end}}
{{if .O.Witness}}[node.charlie]
id      = 2
address = ["10.77.0.50"{{if .O.TwoLinks}}, "10.79.0.50"{{end}}]
witness = true
vipd.control  = "{{.Witness}}/vipd.sock"
vipd.state    = "{{.Witness}}/state"
vipd.http     = ""
{{end}}
{{define "common"}}replication  = "{{.Replication}}"
extent-size  = "{{.ExtentSize}}"
keepdirty    = {{.KeepDirty}}
compression  = "{{.Compression}}"
timeout      = "{{.Timeout}}"
disk-timeout = "{{.DiskTimeout}}"
start-as     = "{{.StartAs}}"
on-peer-loss = "{{.OnPeerLoss}}"
{{end}}
[resource.data]
provider     = "nbd-server"
{{template "common" .O}}{{.O.Extra}}
{{range .Nodes}}
[resource.data.on.{{.Side}}]
local         = "{{.Local}}"
provider-path = "{{.Socket}}"
{{end}}
{{if .O.Device}}[resource.device]
provider     = "fuse"
{{template "common" .O}}
{{range .Nodes}}
[resource.device.on.{{.Side}}]
local         = "{{.Second}}"
provider-path = "{{.Device}}"
{{end}}{{end}}
{{if .O.Group}}[group.data]
nodes       = ["alpha", "bravo"]
resources   = ["data"{{if .O.Device}}, "device"{{end}}]
election    = "{{.O.Election}}"
pass-file   = "{{.Pass}}"
{{if eq .O.Election "vrrp"}}advert-interval = "{{.O.Interval}}"
{{end}}start-delay = "500ms"
interfaces  = [{{range $i, $x := .Links}}{{if $i}}, {{end}}"{{$x}}"{{end}}]
{{if not .O.Bare}}address     = [{{range $i, $x := .Services}}{{if $i}}, {{end}}"{{$x}}"{{end}}]
{{end}}
[[group.data.service]]
name     = "app"
start    = ["/usr/bin/touch", "{{.App}}"]
stop     = ["/usr/bin/rm", "-f", "{{.App}}"]
monitor  = ["/bin/sh", "-c", "test -e {{.App}} && exit 110; exit 100"]
interval = "1s"
{{if .O.OnDevice}}
[[group.data.mount]]
device = "{{.OnDevice}}"
dir    = "{{.Dir}}"
type   = "ext4"
{{end}}{{if eq .O.OnDevice "postgresql"}}
[[group.data.service]]
name    = "db"
start   = ["/bin/sh", "{{.Database}}", "start"]
stop    = ["/bin/sh", "{{.Database}}", "stop"]
monitor = ["/bin/sh", "{{.Database}}", "monitor"]
{{end}}{{end}}`))

// WriteConfig writes the configuration that a node reads.
func (l *Lab) WriteConfig(n *Node) error {
	type node struct {
		Side                                                   Side
		Address, Control, State, Local, Socket, Second, Device string
		VipdControl, SecondLink, Line                          string
	}
	data := struct {
		Key   string
		Port  int
		O     Options
		Nodes []node
		// Of the group. The service's path differs on the nodes, which share files.
		Pass, App               string
		OnDevice, Dir, Database string
		Links, Services         []string
		Witness                 string // its folder
		Lease                   time.Duration
	}{Witness: l.witnessDir(), Lease: majorityLease, Key: filepath.Join(l.o.Dir, "cluster.key"), Port: port, O: l.o, Pass: filepath.Join(l.o.Dir, "carp.pass"),
		App: n.App(), OnDevice: n.Device(), Dir: n.Mount(), Database: n.path("database"), Links: []string{linkName}, Services: []string{prefixed(l.o.Service)}}
	if l.o.Also != "" {
		data.Services = append(data.Services, prefixed(l.o.Also))
	}
	if l.o.Standby {
		data.Links = append(data.Links, standbyName)
	}
	for _, m := range l.Nodes {
		if m == nil {
			continue
		}
		data.Nodes = append(data.Nodes, node{m.Side, l.net.Address(m.Side, n.Side), m.Control(), m.path("state"), m.Local(), m.Socket(), m.Replica(DeviceResource).Local(), m.Device(), m.VipdControl(), secondAddress(Host(m.Side)), l.lineOf(m.Side)})
	}
	f, err := os.Create(n.Config())
	if err != nil {
		return err
	}
	return errors.Join(configText.Execute(f, data), f.Close())
}

// Network is the link.
func (l *Lab) Network() Network { return l.net }

// Cut cuts the link, seen from a side.
func (l *Lab) Cut(s Side, c Cut) error { return l.net.Cut(s, c) }

// Heal makes the link whole.
func (l *Lab) Heal() error { return l.net.Cut(Alpha, CutNone) }

// CreateAndStart makes both replicas and starts both daemons.
func (l *Lab) CreateAndStart(createArgs ...string) error {
	for _, n := range l.Nodes {
		if err := n.Create(createArgs...); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// AwaitConnected waits until both nodes say that they are connected.
func (l *Lab) AwaitConnected(limit time.Duration) error {
	return l.each(func(r *Replica) error { return r.WaitConnection("connected", limit) })
}

// AwaitComplete waits until both nodes say that all is in sync.
func (l *Lab) AwaitComplete(limit time.Duration) error {
	return l.each(func(r *Replica) error { return r.WaitStatus("complete", limit) })
}

// each does something to every replica, up to the first error.
func (l *Lab) each(do func(*Replica) error) error {
	for _, name := range []string{Resource, DeviceResource} {
		for _, n := range l.Nodes {
			if name == DeviceResource && n.second == nil {
				continue
			}
			if err := do(n.Replica(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Tails are the ends of both logs, for a failure's report.
func (l *Lab) Tails(lines int) string {
	var b strings.Builder
	for _, n := range l.Nodes {
		s, err := n.Status()
		fmt.Fprintf(&b, "==== %v: %v %v\n", n.Side, s, err)
		if n.second != nil {
			s, err := n.Replica(DeviceResource).Status()
			fmt.Fprintf(&b, "%s: %v %v\n", DeviceResource, s, err)
		}
		fmt.Fprintln(&b, n.LogTail(lines))
		if log := n.VipdLog(); log != "" {
			fmt.Fprintf(&b, "==== %v: vipd\n%s\n", n.Side, log)
		}
	}
	return b.String()
}

// Close ends everything, whatever state it is in.
func (l *Lab) Close() error {
	var errs []error
	if l.third != nil {
		errs = append(errs, l.third.kill())
	}
	if l.line != nil {
		l.line.Pull()
	}
	for _, n := range l.Nodes {
		if n == nil {
			continue
		}
		if n.vipd != nil {
			errs = append(errs, n.vipd.kill())
		}
		if n.cmd != nil {
			n.cmd.Process.Kill()
		}
		for _, d := range n.disks() {
			if d != nil {
				errs = append(errs, d.Stop())
			}
		}
		if n.cmd != nil {
			errs = append(errs, n.gone())
		}
	}
	return errors.Join(append(errs, l.net.Close())...)
}
