package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hastd/cmd/internal/exit"
	"hastd/metadata"
	"hastd/replicate"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fake is a node with the resources "data" and "logs".
type fake struct {
	hub     Hub
	command func(ctx context.Context, name string, c replicate.Command) error
	reload  error
}

func (f *fake) Node() string { return "alpha" }

func (f *fake) Status(context.Context) []Resource {
	data := Resource{
		Name: "data", Role: "primary", Status: "complete", Connection: "connected", Disk: "uptodate", Replication: "fullsync",
		Provider: &Provider{"nbd-server", "/run/hast/data.nbd", 1 << 30},
		Peer:     Peer{"bravo", "secondary", "uptodate", "10.0.0.2:8457"},
		Resuid:   "0123456789abcdef", Localcnt: 1, Remotecnt: 1, Epoch: 3,
		Sync: Sync{State: "idle"}, Marks: []string{}, Local: "/dev/vg0/data",
	}
	logs := Resource{
		Name: "logs", Role: "secondary", Status: "syncing", Connection: "connected", Disk: "inconsistent", Replication: "async",
		Peer:   Peer{"bravo", Unknown, Unknown, Unknown},
		Resuid: "0000000000000000", DirtyBytes: 4096,
		Sync: Sync{"running", "from-peer", 1, 2, 3, -1}, IO: IO{true, "operator"}, Reason: "being filled",
		Marks: []string{"inconsistent"}, Local: "/srv/logs",
	}
	return []Resource{data, logs}
}

func (f *fake) Resource(ctx context.Context, name string) (Resource, bool) {
	for _, r := range f.Status(ctx) {
		if r.Name == name {
			return r, true
		}
	}
	return Resource{}, false
}

func (f *fake) Command(ctx context.Context, name string, c replicate.Command) error {
	return f.command(ctx, name, c)
}
func (f *fake) Subscribe() (<-chan Event, func()) { return f.hub.Subscribe() }
func (f *fake) Reload(context.Context) (ReloadResult, error) {
	return ReloadResult{Changed: []string{"a"}}, f.reload
}

// The status is a contract: see docs/api.md.
func TestStatusGolden(t *testing.T) {
	rec := httptest.NewRecorder()
	NewHandler(&fake{}).ServeHTTP(rec, httptest.NewRequest("GET", "/v1/resources", nil))
	var got bytes.Buffer
	if err := json.Indent(&got, rec.Body.Bytes(), "", " "); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/status.json"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the status contract changed; fields are only added:\n%s", got.Bytes())
	}
}

// The example that the design fixed must still be read field by field.
func TestStatusHoldsTheFirstContract(t *testing.T) {
	const contract = `{"node":"alpha","resources":[{"name":"data","role":"primary","status":"complete","connection":"connected",
 "disk":"uptodate","replication":"fullsync","provider":{"kind":"nbd-server","path":"…","size":1073741824},
 "peer":{"node":"bravo","role":"secondary","disk":"uptodate","address":"…"},
 "resuid":"0123456789abcdef","localcnt":1,"remotecnt":1,"epoch":3,"dirty_bytes":0,
 "sync":{"state":"idle","direction":"","bytes_done":0,"bytes_left":0,"bytes_per_second":0,"eta_seconds":0},
 "io":{"suspended":false,"reason":""},"reason":""}]}`
	var st Status
	d := json.NewDecoder(strings.NewReader(contract))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	json.Unmarshal([]byte(contract), &want)
	json.Unmarshal(again, &got)
	if missing := lacks(want, got, ""); missing != "" {
		t.Errorf("the status lacks or changes %s", missing)
	}
}

// lacks names the first thing of want that got does not have alike.
func lacks(want, got any, at string) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return at
		}
		for k, v := range w {
			if _, ok := g[k]; !ok {
				return at + "." + k
			}
			if m := lacks(v, g[k], at+"."+k); m != "" {
				return m
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return at
		}
		for i := range w {
			if m := lacks(w[i], g[i], at+"[]"); m != "" {
				return m
			}
		}
	default:
		if want != got {
			return at
		}
	}
	return ""
}

func TestRequestsAndTheirAnswers(t *testing.T) {
	refuse := func(code replicate.RefusalCode) error {
		return &replicate.Refusal{Code: code, Text: "no", Hint: "help"}
	}
	long := `{"role":"init"` + strings.Repeat(" ", MaxBody) + `}` // would do, if it were shorter
	for _, c := range []struct {
		name, method, path, body string
		err                      error
		status                   int
		code                     exit.Code
		want                     replicate.Command
	}{
		{"promote", "POST", "/v1/resources/data/role", `{"role":"primary","force":true}`, nil, 200, 0, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary, Force: true}},
		{"demote", "POST", "/v1/resources/logs/role", `{"role":"secondary"}`, nil, 200, 0, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary}},
		{"connect", "POST", "/v1/resources/data/connect", ``, nil, 200, 0, replicate.Command{Kind: replicate.CmdConnect}},
		{"disconnect", "POST", "/v1/resources/data/disconnect", `{}`, nil, 200, 0, replicate.Command{Kind: replicate.CmdDisconnect}},
		{"resume", "POST", "/v1/resources/data/resume", ``, nil, 200, 0, replicate.Command{Kind: replicate.CmdResume}},
		{"suspend", "POST", "/v1/resources/data/suspend", ``, nil, 200, 0, replicate.Command{Kind: replicate.CmdSuspend}},
		{"resume with errors", "POST", "/v1/resources/data/resume", `{"error":true}`, nil, 200, 0, replicate.Command{Kind: replicate.CmdResume, WithError: true}},
		{"recover", "POST", "/v1/resources/data/recover", `{"discard_local":true}`, nil, 200, 0, replicate.Command{Kind: replicate.CmdRecover}},
		{"grant", "POST", "/v1/resources/data/grant", `{"generation":7,"incarnation":1,"peer":2,"owner":true,"hold":true,"lease_end":99}`, nil, 200, 0,
			replicate.Command{Kind: replicate.CmdGrant, Grant: &replicate.Grant{Generation: 7, Incarnation: 1, Peer: 2, Owner: true, Hold: true, Until: 99}}},
		{"grant of nothing", "POST", "/v1/resources/data/grant", `{"owner":true}`, nil, 400, exit.Usage, replicate.Command{}},
		{"grant of a lease in no time", "POST", "/v1/resources/data/grant", `{"generation":7,"lease_end":-1}`, nil, 400, exit.Usage, replicate.Command{}},
		{"recover without saying so", "POST", "/v1/resources/data/recover", ``, nil, 400, exit.Usage, replicate.Command{}},
		{"unknown role", "POST", "/v1/resources/data/role", `{"role":"master"}`, nil, 400, exit.Usage, replicate.Command{}},
		{"unknown field", "POST", "/v1/resources/data/role", `{"role":"init","forced":true}`, nil, 400, exit.Usage, replicate.Command{}},
		{"two values", "POST", "/v1/resources/data/role", `{"role":"init"}{}`, nil, 400, exit.Usage, replicate.Command{}},
		{"not JSON", "POST", "/v1/resources/data/role", `role`, nil, 400, exit.Usage, replicate.Command{}},
		{"body too long", "POST", "/v1/resources/data/role", long, nil, 400, exit.Usage, replicate.Command{}},
		{"unknown command", "POST", "/v1/resources/data/explode", ``, nil, 400, exit.Usage, replicate.Command{}},
		{"unknown resource", "POST", "/v1/resources/date/role", `{"role":"init"}`, nil, 404, exit.Usage, replicate.Command{}},
		{"unknown resource asked for", "GET", "/v1/resources/date", ``, nil, 404, exit.Usage, replicate.Command{}},
		{"unknown path", "GET", "/v2/resources", ``, nil, 404, exit.Usage, replicate.Command{}},
		{"bad timeout", "POST", "/v1/resources/data/connect?timeout=never", ``, nil, 400, exit.Usage, replicate.Command{}},
		{"endless timeout", "POST", "/v1/resources/data/connect?timeout=2h", ``, nil, 400, exit.Usage, replicate.Command{}},
		{"busy", "POST", "/v1/resources/data/connect", ``, refuse(replicate.RefusedBusy), 409, exit.Again, replicate.Command{Kind: replicate.CmdConnect}},
		{"refused", "POST", "/v1/resources/data/connect", ``, refuse(replicate.RefusedPolicy), 403, exit.Refused, replicate.Command{Kind: replicate.CmdConnect}},
		{"I/O", "POST", "/v1/resources/data/connect", ``, refuse(replicate.RefusedIO), 502, exit.IO, replicate.Command{Kind: replicate.CmdConnect}},
		{"bug", "POST", "/v1/resources/data/connect", ``, refuse(replicate.RefusedInternal), 500, exit.Internal, replicate.Command{Kind: replicate.CmdConnect}},
		{"daemon's own word", "POST", "/v1/resources/data/connect", ``, exit.New(exit.Config, "help", "no"), 422, exit.Config, replicate.Command{Kind: replicate.CmdConnect}},
		{"stopping", "POST", "/v1/resources/data/connect", ``, context.Canceled, 409, exit.Again, replicate.Command{Kind: replicate.CmdConnect}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got replicate.Command
			f := &fake{command: func(_ context.Context, _ string, cmd replicate.Command) error { got = cmd; return c.err }}
			rec := httptest.NewRecorder()
			NewHandler(f).ServeHTTP(rec, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
			if rec.Code != c.status {
				t.Errorf("status %d, want %d: %s", rec.Code, c.status, rec.Body)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("command %+v, want %+v", got, c.want)
			}
			var f2 Failure
			if err := json.Unmarshal(rec.Body.Bytes(), &f2); err != nil {
				t.Fatalf("answer is not JSON: %v: %s", err, rec.Body)
			}
			if f2.Code != c.code {
				t.Errorf("code %d, want %d", f2.Code, c.code)
			}
			if c.code != 0 && (f2.Error == "" || f2.Hint == "") {
				t.Errorf("no error or no hint: %+v", f2)
			}
		})
	}
}

// serveUnix runs the API on a real socket.
func serveUnix(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return path
}

func TestCommandIsBoundedByTimeout(t *testing.T) {
	f := &fake{command: func(ctx context.Context, _ string, _ replicate.Command) error { <-ctx.Done(); return ctx.Err() }}
	c := NewClient(serveUnix(t, NewHandler(f)), 20*time.Millisecond)
	_, err := c.Command(t.Context(), "data", "connect", nil)
	if exit.CodeOf(err) != exit.Again || !strings.Contains(err.Error(), "not done in time") {
		t.Errorf("got %v (code %d), want the daemon's word that it was not done in time", err, exit.CodeOf(err))
	}
}

func TestClientAgainstHungDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // accepts in the kernel, answers never
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(path, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Status(ctx)
	if exit.CodeOf(err) != exit.Again {
		t.Errorf("got %v (code %d), want code 75", err, exit.CodeOf(err))
	}
}

func TestClientAgainstNobody(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{filepath.Join(dir, "missing"), stale} {
		_, err := NewClient(path, time.Second).Status(t.Context())
		if exit.CodeOf(err) != exit.Unreachable || exit.HintOf(err) == "" {
			t.Errorf("%s: got %v (code %d), want code 69 and a hint", path, err, exit.CodeOf(err))
		}
	}
}

func TestEventsStream(t *testing.T) {
	f := &fake{}
	c := NewClient(serveUnix(t, NewHandler(f)), time.Second)
	var got []Event
	stop := errors.New("enough")
	err := c.Events(t.Context(), func() {
		for i := range 3 {
			f.hub.Publish(Event{Time: time.Now().UTC(), Node: "alpha", Kind: "role", Name: "data", New: fmt.Sprint(i)})
		}
	}, func(ev Event) error {
		got = append(got, ev)
		if len(got) == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || len(got) != 3 || got[2].New != "2" {
		t.Errorf("got %v and %+v", err, got)
	}
}

func TestEventsEndWithTheDaemon(t *testing.T) {
	f := &fake{}
	c := NewClient(serveUnix(t, NewHandler(f)), time.Second)
	err := c.Events(t.Context(), f.hub.Close, func(Event) error { return nil })
	if exit.CodeOf(err) != exit.Unreachable {
		t.Errorf("got %v, want code 69", err)
	}
}

func TestSlowReaderIsLetGo(t *testing.T) {
	var h Hub
	events, stop := h.Subscribe()
	defer stop()
	for range subscriberQueue + 10 {
		h.Publish(Event{Kind: "role"})
	}
	n, last := 0, Event{}
	for n <= subscriberQueue { // all of them are there already
		last = <-events
		n++
	}
	select {
	case _, open := <-events:
		if open {
			t.Error("there is more than the last event")
		}
	default:
		t.Error("the stream does not end")
	}
	if n != subscriberQueue+1 || last.Kind != KindDropped {
		t.Errorf("%d events, the last %q; want %d and %q", n, last.Kind, subscriberQueue+1, KindDropped)
	}
}

func TestVersionAndReload(t *testing.T) {
	f := &fake{}
	c := NewClient(serveUnix(t, NewHandler(f)), time.Second)
	v, err := c.Version(t.Context())
	if err != nil || v.Node != "alpha" || v.API != 1 || v.Go == "" {
		t.Errorf("version: %+v, %v", v, err)
	}
	r, err := c.Reload(t.Context())
	if err != nil || len(r.Changed) != 1 || r.Restart == nil {
		t.Errorf("reload: %+v, %v", r, err)
	}
	f.reload = exit.New(exit.Config, "mend it", "bad file")
	if _, err := c.Reload(t.Context()); exit.CodeOf(err) != exit.Config || err.Error() != "bad file" || exit.HintOf(err) != "mend it" {
		t.Errorf("reload of a bad file: %v (code %d, hint %q)", err, exit.CodeOf(err), exit.HintOf(err))
	}
}

// What is not the API's is told so, and not parsed.
func TestClientAgainstAnotherServer(t *testing.T) {
	c := NewClient(serveUnix(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(418)
		io.WriteString(w, "<html>")
	})), time.Second)
	if _, err := c.Status(t.Context()); exit.CodeOf(err) != exit.Internal || exit.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}
