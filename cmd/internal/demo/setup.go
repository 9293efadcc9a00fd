package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// folderPrefix is how the folders of demonstrations are recognised.
const folderPrefix = "hast-demo-"

// prepare chooses how the story is told, and writes key and configuration.
func (d *demo) prepare(ctx context.Context) error {
	kind, why, err := d.chooseProvider(ctx)
	if err != nil {
		return err
	}
	if why != "" {
		d.Say("No ext4 on a device here (%s):", why)
		d.Say("the same story over the NBD socket, with files as records on the raw device.")
	}
	d.Provider = kind
	names, addresses := [2]string{"alpha", "bravo"}, [2]string{"127.0.0.1", "127.0.0.2"}
	if d.port, err = freePort(addresses[:]...); err != nil {
		return err
	}
	for i := range d.nodes {
		n := &node{name: names[i], address: addresses[i], dir: d.path(names[i]), d: d}
		port, err := freePort(n.address)
		if err != nil {
			return err
		}
		n.http = fmt.Sprintf("%s:%d", n.address, port)
		n.api = api.NewClient(n.control(), commandLimit)
		if err := os.MkdirAll(filepath.Dir(n.control()), 0o700); err != nil {
			return err
		}
		d.nodes[i] = n
	}
	f, err := os.OpenFile(d.path("hast.toml"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(configText.Execute(f, configData{d.path("cluster.key"), d.port, kind, d.nodes}), f.Close())
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"keygen"}, {"check"}} {
		if _, err := d.alpha().quiet(ctx, args...); err != nil {
			return err
		}
	}
	d.Say("Everything stands in %s: configuration, key, disks, sockets.", d.dir)
	d.Say("hastctl is called with -c hast.toml from there, which is left out below.")
	d.Say("Replication goes over %s and %s, port %d.", addresses[0], addresses[1], d.port)
	return nil
}

type configData struct {
	Key      string
	Port     int
	Provider string
	Nodes    [2]*node
}

func (n *node) Name() string    { return n.name }
func (n *node) Address() string { return n.address }
func (n *node) HTTP() string    { return n.http }
func (n *node) Control() string { return n.control() }
func (n *node) State() string   { return n.path("state") }
func (n *node) Disk() string    { return n.disk() }
func (n *node) Device() string  { return n.device() }

var configText = template.Must(template.New("").Parse(`# Made by hastctl demo: two nodes on one machine.
[cluster]
name     = "demo"
key-file = {{printf "%q" .Key}}

[hastd]
port = {{.Port}}
{{range $i, $n := .Nodes}}
[node.{{$n.Name}}]
id            = {{$i}}
address       = ["{{$n.Address}}"]
hastd.control = {{printf "%q" $n.Control}}
hastd.state   = {{printf "%q" $n.State}}
hastd.http    = "{{$n.HTTP}}"
{{end}}
[resource.demo]
provider = "{{.Provider}}"
timeout  = "5s"
start-as = "secondary"
{{range .Nodes}}
[resource.demo.on.{{.Name}}]
local         = {{printf "%q" .Disk}}
provider-path = {{printf "%q" .Device}}
{{end}}`))

// chooseProvider finds out what works here, by trying it. why says what is
// missing if the better one is not taken.
func (d *demo) chooseProvider(ctx context.Context) (kind, why string, err error) {
	if d.Provider == NBD {
		return NBD, "", nil
	}
	missing := d.tryDevice(ctx)
	switch {
	case missing == nil:
		return FUSE, "", nil
	case d.Provider == FUSE:
		return "", "", exit.New(exit.CantCreate, "leave --provider out to see the story over the NBD socket", "ext4 on a device does not work here: %w", missing)
	}
	return NBD, missing.Error(), nil
}

// probeSize is the size of the file that is formatted and mounted as a trial.
const probeSize = 8 << 20

// tryDevice makes and mounts an ext4 filesystem over a loop device, and opens what
// FUSE needs.
func (d *demo) tryDevice(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("only root may mount")
	}
	if d.mkfs, err = stage.Tool("mkfs.ext4"); err != nil {
		return err
	}
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fuse.Close()
	dir := d.path("trial")
	mnt := filepath.Join(dir, "mnt")
	if err := os.MkdirAll(mnt, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unix.Mount("hast-demo", mnt, "fuse", unix.MS_NOSUID|unix.MS_NODEV,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())); err != nil {
		return fmt.Errorf("mount a FUSE filesystem: %w", err)
	}
	if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount a FUSE filesystem: %w", err)
	}
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, probeSize); err != nil {
		return err
	}
	dev, err := attachLoop(file)
	if err != nil {
		return fmt.Errorf("make a loop device: %w", err)
	}
	defer detachLoop(dev)
	if err := d.format(ctx, dev); err != nil {
		return err
	}
	s, err := mountStore(dev, mnt)
	if err != nil {
		return err
	}
	return s.close()
}
