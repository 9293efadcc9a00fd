package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"hastd/cmd/internal/exit"
	"hastd/metadata"
	"hastd/replicate"
)

var fuzzCommands = []string{"role", "connect", "disconnect", "resume", "recover", "nonsense"}

// FuzzCommandBody: whatever is posted, the answer is JSON with a status that fits;
// what is refused reaches no machine, and what reaches one is a command that the same
// request in its plain form gives again.
func FuzzCommandBody(f *testing.F) {
	f.Add(uint8(0), "data", "", []byte(`{"role":"primary","force":true}`))
	f.Add(uint8(0), "data", "timeout=1s", []byte(`{"role":"init"} {}`))
	f.Add(uint8(1), "logs", "", []byte(``))
	f.Add(uint8(3), "data", "timeout=0", []byte(`{"error":true}`))
	f.Add(uint8(4), "data", "", []byte(`{"discard_local":true}`))
	f.Add(uint8(4), "../data", "", []byte(`{"discard_local":false}`))
	f.Add(uint8(5), "data", "timeout=9999999h", []byte(`[]`))
	f.Fuzz(func(t *testing.T, which uint8, name, query string, body []byte) {
		command := fuzzCommands[int(which)%len(fuzzCommands)]
		post := func(query string, body []byte) (*httptest.ResponseRecorder, *replicate.Command) {
			var got *replicate.Command
			b := &fake{command: func(_ context.Context, to string, c replicate.Command) error {
				if got != nil || to != name {
					t.Fatalf("%s of %q: a command for %q", command, name, to)
				}
				got = &c
				return nil
			}}
			req := httptest.NewRequest("POST", "/v1/resources/"+url.PathEscape(name)+"/"+command, bytes.NewReader(body))
			req.URL.RawQuery = query
			rec := httptest.NewRecorder()
			NewHandler(b).ServeHTTP(rec, req)
			return rec, got
		}
		rec, got := post(query, body)
		if rec.Body.Len() > MaxAnswer {
			t.Fatalf("an answer of %d bytes", rec.Body.Len())
		}
		if got == nil {
			if rec.Code < 300 {
				t.Fatalf("%d, but nothing was done", rec.Code)
			}
			var fail Failure
			if rec.Code >= 400 && strings.HasPrefix(rec.Header().Get("Content-Type"), "application/json") {
				if err := json.Unmarshal(rec.Body.Bytes(), &fail); err != nil || fail.Error == "" || fail.Code == exit.OK {
					t.Fatalf("%d with %q: %v", rec.Code, rec.Body, err)
				}
			}
			return
		}
		var res Resource
		if err := json.Unmarshal(rec.Body.Bytes(), &res); err != nil || rec.Code != http.StatusOK || res.Name != name {
			t.Fatalf("%d with %q: %v", rec.Code, rec.Body, err)
		}
		if len(body) > MaxBody {
			t.Fatalf("a body of %d bytes was taken", len(body))
		}
		var plain any = struct{}{}
		switch got.Kind {
		case replicate.CmdRole:
			if got.Role > metadata.Primary {
				t.Fatalf("role %d", got.Role)
			}
			plain = RoleRequest{Role: got.Role.String(), Force: got.Force}
		case replicate.CmdResume:
			plain = ResumeRequest{Error: got.WithError}
		case replicate.CmdGrant:
			g := got.Grant
			plain = GrantRequest{g.Generation, g.Incarnation, g.Peer, g.Owner, g.PeerOwner, g.Hold, g.Adding, int64(g.Until)}
		case replicate.CmdRecover:
			plain = RecoverRequest{DiscardLocal: true}
		}
		again, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, c := post("", again); c == nil || !reflect.DeepEqual(c, got) {
			t.Fatalf("%s became %+v, and %s became %+v", body, got, again, c)
		}
	})
}

// fixed answers every request with the same status and body.
type fixed struct {
	status int
	body   []byte
}

func (r fixed) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: r.status, Status: http.StatusText(r.status), Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(r.body)), Request: req}, nil
}

// FuzzAnswer: whatever answers on the control socket, the client returns a result or
// an error that a person can read, with an exit code that is not that of success; what
// it reads means the same when written again.
func FuzzAnswer(f *testing.F) {
	for _, path := range []string{"/v1/resources", "/v1/resources/data", "/v1/version", "/v1/resources/nothing"} {
		rec := httptest.NewRecorder()
		NewHandler(&fake{}).ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		f.Add(uint16(rec.Code), rec.Body.Bytes())
	}
	f.Add(uint16(200), []byte(`{"kind":"role","resource":"data"}`+"\n"+`{"kind":"dropped"}`+"\n"))
	f.Add(uint16(500), []byte(`{"error":"no","code":0}`))
	f.Add(uint16(404), []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		code := 100 + int(status)%500
		c := NewClient("/nonexistent", time.Second)
		c.http.Transport = fixed{code, body}
		ctx := context.Background()
		bad := func(err error) bool {
			var e *exit.Error
			if err == nil {
				if code != http.StatusOK {
					t.Fatalf("status %d is a success", code)
				}
				return false
			}
			if !errors.As(err, &e) || e.Code == exit.OK || e.Text == "" {
				t.Fatalf("%#v", err)
			}
			return true
		}
		if s, err := c.Status(ctx); !bad(err) {
			one, _ := json.Marshal(s)
			c.http.Transport = fixed{code, one}
			again, err := c.Status(ctx)
			two, _ := json.Marshal(again)
			if err != nil || !bytes.Equal(one, two) {
				t.Fatalf("%s became %s: %v", one, two, err)
			}
			c.http.Transport = fixed{code, body}
		}
		_, err := c.Resource(ctx, "data")
		bad(err)
		_, err = c.Command(ctx, "data", "role", RoleRequest{Role: "primary"})
		bad(err)
		events := 0
		err = c.Events(ctx, nil, func(Event) error { events++; return nil })
		if err == nil || events > len(body) {
			t.Fatalf("%d events of %d bytes, and no error at the end", events, len(body))
		}
	})
}
