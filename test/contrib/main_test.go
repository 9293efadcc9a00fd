package contrib

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hastd/test/lab"
)

// root is the tree, seen from this package.
const root = "../.."

// runLimit bounds one call of a script, whatever time it has been given.
const runLimit = 60 * time.Second

var (
	programsOnce sync.Once
	programs     lab.Programs
	programsDir  string
	programsErr  error
)

func TestMain(m *testing.M) {
	// Scripts that wait for a second or two cost no processor.
	flag.Parse()
	flag.Set("test.parallel", "8")
	code := m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func script(t testing.TB, name string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(root, "contrib", name))
	must(t, err)
	return p
}

// newPair is two daemons that are secondary and connected; no root is needed.
func newPair(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	programsOnce.Do(func() {
		if programsDir, programsErr = os.MkdirTemp("", "contrib-programs-"); programsErr == nil {
			programs, programsErr = lab.Build(programsDir, false)
		}
	})
	must(t, programsErr)
	dir, err := os.MkdirTemp("", "contrib-") // socket paths have an end at 107 bytes
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	o.Dir, o.Programs, o.Relay, o.Plain, o.Size = dir, programs, true, true, 32<<20
	l, err := lab.New(o)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.Tails(40))
		}
		if err := l.Close(); err != nil {
			t.Errorf("ending the lab: %v", err)
		}
	})
	must(t, l.CreateAndStart())
	return l
}

// result is how a script ended.
type result struct {
	code   int
	output string // both streams
	took   time.Duration
}

// call runs a program in an environment of its own.
func call(t testing.TB, env map[string]string, uid int, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, k+"="+env[k])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	// What hangs has children; all of them go.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	r := result{output: out.String(), took: time.Since(start)}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("%v: %v", argv, err)
	}
	return r
}

// fake is a folder with a hastctl that does as told, and with what else the scripts
// call and the machine must not feel: logger, ip, crm_attribute.
type fake struct {
	t   testing.TB
	dir string
}

// fakeHastctl skips the global options and runs the file named after the command:
// status, check, role-primary … Without such a file the command succeeds.
const fakeHastctl = `
echo "$*" >>"$here/calls"
while :; do
	case $1 in
	-c | --node | --control | --timeout) shift 2 ;;
	--json) shift ;;
	*) break ;;
	esac
done
key=$1
[ "$1" != role ] || key=role-$2
[ -e "$here/$key" ] || exit 0
. "$here/$key"
`

func newFake(t testing.TB) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "contrib-fake-")
	must(t, err)
	must(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fake{t, dir}
	f.program("hastctl", fakeHastctl)
	f.program("logger", `echo "$*" >>"$here/log"`)
	f.program("ip", `echo "$*" >>"$here/ip-calls"`)
	return f
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

// program writes a program into the folder.
func (f *fake) program(name, body string) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.path(name), []byte("#!/bin/sh\nhere="+f.dir+"\n"+body+"\n"), 0o755))
}

// does says what hastctl does at a command.
func (f *fake) does(command, body string) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.path(command), []byte(body+"\n"), 0o644))
}

// fails is a hastctl command that ends with a status, an error and a hint.
func fails(code int) string {
	return fmt.Sprintf("echo 'hastctl: error: it failed with %[1]d' >&2; echo 'hastctl: hint: mend %[1]d' >&2; exit %[1]d", code)
}

func (f *fake) read(name string) string {
	b, _ := os.ReadFile(f.path(name))
	return string(b)
}

// with is the environment of a script: this machine's, with the fake programs first.
func (f *fake) with(more ...string) map[string]string {
	env := map[string]string{"PATH": f.dir + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME": f.dir}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

// state is what hastctl --json status NAME says, as far as the scripts look.
type state struct{ role, status, connection, disk, peerRole, peerDisk, resuid string }

var uptodate = state{"secondary", "complete", "connected", "uptodate", "secondary", "uptodate", "0123456789abcdef"}

func (s state) with(change func(*state)) state { change(&s); return s }

// shows is the fake's status command. Text with quotes, braces and names of fields
// stands where it must not be taken for more than text.
func (s state) shows() string {
	return fmt.Sprintf(`cat <<'EOF'
{
 "node": "alpha",
 "resources": [
  {
   "name": "data",
   "marks": ["raised", "role"],
   "peer": {"node": "bravo", "role": %q, "disk": %q, "address": "[::1]:8457"},
   "provider": null,
   "io": {"suspended": false, "reason": ""},
   "reason": "why: \"role\": {primary}, [x]",
   "role": %q,
   "status": %q, "connection": %q,
   "disk": %q, "epoch": 3, "sync": {"state": "idle", "eta_seconds": -1},
   "resuid": %q
  }
 ]
}
EOF`, s.peerRole, s.peerDisk, s.role, s.status, s.connection, s.disk, s.resuid)
}

// await waits until something holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(runLimit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to be: %s", what)
		}
	}
}

func wantIn(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}
