package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain doubles as the process that holds a file or device: with HAST_TEST_HOLD
// it opens and locks it as other programs do, says so, and waits for its input to
// end.
func TestMain(m *testing.M) {
	if path := os.Getenv("HAST_TEST_HOLD"); path != "" {
		hold(path)
		return
	}
	code := m.Run()
	if built.path != "" {
		os.RemoveAll(filepath.Dir(built.path))
	}
	os.Exit(code)
}

func hold(path string) {
	flags := os.O_RDWR
	if strings.HasPrefix(path, "/dev/") {
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0)
	if err == nil && flags&unix.O_EXCL == 0 {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
}

// holdByAnother lets another process hold path until the test ends.
func holdByAnother(t *testing.T, path string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HAST_TEST_HOLD="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("hold %s: %s", path, line)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a filesystem or makes a loop device")
	}
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // not in everybody's path
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// cluster is a configuration of one node whose files stand in a folder of the test.
type cluster struct {
	t    *testing.T
	dir  string
	file string
}

const clusterText = `[cluster]
name     = "test"
insecure = true
[hastd]
port    = %d
control = "%[2]s/run/hastd.sock"
state   = "%[2]s/state"
http    = ""
[node.alpha]
id      = 0
address = ["127.0.0.1"]
[node.bravo]
id      = 1
address = ["127.0.0.2"]
`

const resourceText = `[resource.%s]
provider = "nbd-server"
on.alpha.local = "%s"
on.alpha.provider-path = "%s"
on.bravo.local = "/nowhere/%[1]s"
`

// newCluster writes a configuration; components are pairs of name and path.
func newCluster(t *testing.T, components ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	text := fmt.Sprintf(clusterText, freePort(t), c.dir)
	for i := 0; i < len(components); i += 2 {
		text += fmt.Sprintf(resourceText, components[i], components[i+1], c.path(components[i]+".nbd"))
	}
	c.file = c.path("hast.toml")
	if err := os.WriteFile(c.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

// args are the global flags for this cluster and what follows them.
func (c *cluster) args(more ...string) []string {
	return append([]string{"-c", c.file, "--node", "alpha", "--timeout", "5s"}, more...)
}

// call runs hastctl in this process, as main does.
func call(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code = int(report(&e, run(ctx, args, stdio{&o, &e})))
	return code, o.String(), e.String()
}

// must runs a command that has to succeed.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	code, out, errs := call(c.args(args...)...)
	if code != 0 {
		c.t.Fatalf("hastctl %v: status %d\n%s", args, code, errs)
	}
	return out
}

// start runs the real daemon until the test ends.
func (c *cluster) start() *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command(hastdBinary(c.t), "-c", c.file, "--node", "alpha")
	var log bytes.Buffer
	cmd.Stderr = &log
	note := c.path("notify")
	ready := listenNotify(c.t, note)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+note)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	c.t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGCONT)
		cmd.Process.Signal(unix.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				c.t.Errorf("hastd did not stop cleanly: %v\n%s", err, log.String())
			}
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
			c.t.Errorf("hastd did not stop\n%s", log.String())
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		c.t.Fatalf("hastd ended at its start: %v\n%s", err, log.String())
	case <-time.After(20 * time.Second):
		c.t.Fatalf("hastd does not say that it is ready")
	}
	return cmd
}
