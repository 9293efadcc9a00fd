package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"
)

const (
	// metadataRoom is left out when replicas are compared: each node's own
	// metadata stands at the end of its file.
	metadataRoom = 8 << 20
	syncLimit    = 2 * time.Minute
)

var pairConfig = template.Must(template.New("").Parse(`[cluster]
name = "bench"
insecure = true
[hastd]
port = {{.Port}}
http = ""
[node.alpha]
id = 0
address = ["127.0.0.1"]
hastd.control = "{{.Dir}}/alpha.sock"
hastd.state = "{{.Dir}}/alpha"
[node.bravo]
id = 1
address = ["127.0.0.2"]
hastd.control = "{{.Dir}}/bravo.sock"
hastd.state = "{{.Dir}}/bravo"
[resource.data]
replication = "fullsync"
provider = "nbd-server"
[resource.data.on.alpha]
local = "{{.Dir}}/alpha.img"
provider-path = "{{.Dir}}/pair.nbd"
[resource.data.on.bravo]
local = "{{.Dir}}/bravo.img"
provider-path = "{{.Dir}}/bravo.nbd"
`))

// startPair starts two hastd daemons that mirror each other in fullsync over TCP
// on the loopback interface, and makes alpha primary.
func startPair(ctx context.Context, dir string, size int64, programs string) (*stack, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	s := &stack{name: "hastd", uri: "nbd+unix:///data?socket=" + in("pair.nbd"), images: []string{in("alpha.img"), in("bravo.img")}}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := pairConfig.Execute(&text, map[string]any{"Dir": dir, "Port": port}); err != nil {
		return nil, err
	}
	conf := in("hast.toml")
	if err := os.WriteFile(conf, text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	ctl := func(node string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "hastctl"), append([]string{"-c", conf, "--node", node}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return out, fmt.Errorf("hastctl %v on %s: %w\n%s", args, node, err, bytes.TrimSpace(stderr.Bytes()))
		}
		return out, nil
	}
	complete := func() (bool, error) {
		out, err := ctl("alpha", "--json", "status", "data")
		if err != nil {
			return false, err
		}
		var st struct {
			Resources []struct{ Role, Status, Reason string }
		}
		if err := json.Unmarshal(out, &st); err != nil || len(st.Resources) != 1 {
			return false, errors.Join(fmt.Errorf("status is %s", out), err)
		}
		r := st.Resources[0]
		return r.Role == "primary" && r.Status == "complete", fmt.Errorf("status %s as %s: %s", r.Status, r.Role, r.Reason)
	}
	begin := func() error {
		for _, node := range []string{"alpha", "bravo"} {
			if err := os.MkdirAll(in(node), 0o700); err != nil {
				return err
			}
			if _, err := ctl(node, "create", "data", "--size", fmt.Sprint(size)); err != nil {
				return err
			}
			p, err := start(in(node+".log"), filepath.Join(programs, "hastd"), "-c", conf, "--node", node)
			if err != nil {
				return err
			}
			s.procs = append(s.procs, p)
			if err := p.listening(ctx, in(node+".sock")); err != nil {
				return err
			}
		}
		if _, err := ctl("bravo", "role", "secondary", "data"); err != nil {
			return err
		}
		if _, err := ctl("alpha", "role", "primary", "data"); err != nil {
			return err
		}
		return s.procs[0].await(ctx, syncLimit, complete)
	}
	if err := begin(); err != nil {
		s.stop()
		return nil, err
	}
	// A pair that lost its peer on the way was measured without replication.
	s.quiet = func(context.Context) error {
		ok, err := complete()
		if ok {
			return nil
		}
		return s.procs[0].wrong(err)
	}
	return s, nil
}

func freePort() (int, error) {
	for range 20 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
		a.Close()
		if err == nil {
			return port, b.Close()
		}
	}
	return 0, errors.New("no port is free on 127.0.0.1 and 127.0.0.2 at once")
}
