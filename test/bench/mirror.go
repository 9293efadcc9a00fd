package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// startMirror serves a file through qemu's mirror job in write-blocking mode,
// which acknowledges a write when both files have it, as fullsync does. The second
// file is another qemu-storage-daemon's, behind a Unix socket.
func startMirror(ctx context.Context, dir string, size int64) (*stack, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	s := &stack{
		name: "qemu-mirror", uri: "nbd+unix:///source?socket=" + in("qemu.nbd"),
		images: []string{in("qemu-a.img"), in("qemu-b.img")},
	}
	for _, img := range s.images {
		if err := makeFile(img, size); err != nil {
			return nil, err
		}
	}
	launch := func(name, monitor, sock, node, img string, more ...string) error {
		p, err := start(in(name+".log"), append([]string{"qemu-storage-daemon",
			"--chardev", "socket,id=m,server=on,wait=off,path=" + in(monitor), "--monitor", "chardev=m",
			"--blockdev", "driver=file,node-name=" + node + ",filename=" + img,
			"--nbd-server", "addr.type=unix,addr.path=" + in(sock),
			"--export", "type=nbd,id=e,writable=on,name=" + node + ",node-name=" + node,
		}, more...)...)
		if err != nil {
			return err
		}
		s.procs = append(s.procs, p)
		return errors.Join(p.listening(ctx, in(sock)), p.listening(ctx, in(monitor)))
	}
	err := launch("qemu-b", "qemu-b.qmp", "qemu-b.nbd", "target", s.images[1])
	if err == nil {
		err = launch("qemu-a", "qemu-a.qmp", "qemu.nbd", "source", s.images[0],
			"--blockdev", "driver=nbd,node-name=peer,server.type=unix,server.path="+in("qemu-b.nbd")+",export=target")
	}
	if err == nil {
		err = mirror(ctx, in("qemu-a.qmp"))
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("qemu's mirror: %w", err)
	}
	return s, nil
}

// mirror starts the job and waits until it is ready: from then on each write to
// the source goes to both before it is answered. The export stands already; the
// job puts itself between it and the file.
func mirror(ctx context.Context, monitor string) error {
	c, err := net.Dial("unix", monitor)
	if err != nil {
		return err
	}
	defer c.Close()
	end := time.Now().Add(startLimit)
	if at, ok := ctx.Deadline(); ok && at.Before(end) {
		end = at
	}
	if err := c.SetDeadline(end); err != nil {
		return err
	}
	to, from := json.NewEncoder(c), json.NewDecoder(c)
	for _, cmd := range []any{
		map[string]any{"execute": "qmp_capabilities"},
		map[string]any{"execute": "blockdev-mirror", "arguments": map[string]any{
			"job-id": "mirror", "device": "source", "target": "peer", "sync": "full", "copy-mode": "write-blocking",
		}},
	} {
		if err := to.Encode(cmd); err != nil {
			return err
		}
	}
	for {
		var m struct {
			Event string
			Error *struct{ Desc string }
		}
		if err := from.Decode(&m); err != nil {
			return fmt.Errorf("wait until the job is ready: %w", err)
		}
		switch {
		case m.Error != nil:
			return errors.New(m.Error.Desc)
		case m.Event == "BLOCK_JOB_READY":
			return nil
		case m.Event == "BLOCK_JOB_ERROR" || m.Event == "BLOCK_JOB_COMPLETED":
			return errors.New("the job ended: " + m.Event)
		}
	}
}
