package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
	"hastd/metadata"
	"hastd/replicate"
)

// Backend is what the server controls. Errors are *exit.Error where the
// administrator can do something about them; Command also returns
// *replicate.Refusal and the context's errors.
type Backend interface {
	Daemon
	// Status returns all resources of the node in the order of the configuration.
	Status(ctx context.Context) []Resource
	// Resource returns one; false if no such is configured on this node.
	Resource(ctx context.Context, name string) (Resource, bool)
	// Command waits until the command is carried out, refused, or ctx ends.
	Command(ctx context.Context, name string, c replicate.Command) error
}

// Daemon is what both daemons answer.
type Daemon interface {
	Node() string
	// Subscribe gives the events from now on. The channel is closed when the
	// daemon stops; stop ends the subscription.
	Subscribe() (events <-chan Event, stop func())
	Reload(ctx context.Context) (ReloadResult, error)
}

// writeTimeout bounds how long a client may take to read an answer or an event.
const writeTimeout = 10 * time.Second

type server struct{ b Backend }

// common answers what every daemon is asked.
type common struct {
	program string
	d       Daemon
}

// handle makes a handler of the common requests and those of routes, for the daemon of
// this name.
func handle(program string, d Daemon, routes func(mux *http.ServeMux)) http.Handler {
	c := &common{program, d}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", c.version)
	mux.HandleFunc("GET /v1/events", c.events)
	mux.HandleFunc("POST /v1/reload", c.reload)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		notFound(w, exit.New(exit.Usage, "docs/api.md lists the requests", "no such request: %s %s", printable(r.Method), printable(r.URL.Path)))
	})
	routes(mux)
	return mux
}

// NewHandler serves the API over b.
func NewHandler(b Backend) http.Handler {
	s := &server{b}
	return handle("hastd", b, func(mux *http.ServeMux) {
		mux.HandleFunc("GET /v1/resources", s.status)
		mux.HandleFunc("GET /v1/resources/{name}", s.resource)
		mux.HandleFunc("POST /v1/resources/{name}/{command}", s.command)
	})
}

func (s *common) version(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Version{build.Read(), s.program, s.d.Node(), 1})
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	answer(w, http.StatusOK, Status{s.b.Node(), s.b.Status(ctx)})
}

func (s *server) resource(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	s.answerResource(ctx, w, r.PathValue("name"))
}

func (s *server) answerResource(ctx context.Context, w http.ResponseWriter, name string) {
	res, ok := s.b.Resource(ctx, name)
	if !ok {
		notFound(w, s.unknown(name))
		return
	}
	answer(w, http.StatusOK, res)
}

func (s *server) unknown(name string) error {
	return exit.New(exit.Usage, "hastctl list shows the resources of this node",
		"resource %q is not configured on node %s", printable(name), s.b.Node())
}

// command carries one command out and answers with the resource as it then is.
func (s *server) command(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	if _, ok := s.b.Resource(ctx, name); !ok {
		notFound(w, s.unknown(name))
		return
	}
	c, err := parseCommand(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	if err := s.b.Command(ctx, name, c); err != nil {
		var refusal *replicate.Refusal
		if errors.As(err, &refusal) {
			err = s.explain(name, refusal)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = exit.New(exit.Again, "it may still be carried out: look at hastctl status, then try again with a longer --timeout",
				"%s of %s on node %s was not done in time", r.PathValue("command"), name, s.b.Node())
		}
		fail(w, err)
		return
	}
	s.answerResource(ctx, w, name)
}

// explain gives a refusal what an administrator needs besides: which resource on
// which node, and where to look if the machine has no advice.
func (s *server) explain(name string, r *replicate.Refusal) error {
	e := *r
	if e.Text = strings.TrimPrefix(e.Text, "resource "+name+": "); !strings.HasPrefix(e.Text, "resource ") {
		e.Text = fmt.Sprintf("resource %s on node %s: %s", name, s.b.Node(), e.Text)
	}
	switch {
	case e.Hint != "":
	case e.Code == replicate.RefusedIO: // the text names what is wrong: with a component, a disk or a provider
		e.Hint = "mend that, then order it again"
	default:
		e.Hint = "hastctl status " + name + " and the daemon's log tell more"
	}
	return &e
}

// parseCommand reads the body that belongs to the command in the path.
func parseCommand(w http.ResponseWriter, r *http.Request) (replicate.Command, error) {
	var c replicate.Command
	switch r.PathValue("command") {
	case "role":
		var req RoleRequest
		if err := readBody(w, r, &req); err != nil {
			return c, err
		}
		role, err := metadata.ParseRole(req.Role)
		if err != nil {
			return c, exit.New(exit.Usage, "write init, secondary or primary", "unknown role %q", printable(req.Role))
		}
		return replicate.Command{Kind: replicate.CmdRole, Role: role, Force: req.Force}, nil
	case "connect":
		return replicate.Command{Kind: replicate.CmdConnect}, readBody(w, r, &struct{}{})
	case "disconnect":
		return replicate.Command{Kind: replicate.CmdDisconnect}, readBody(w, r, &struct{}{})
	case "resume":
		var req ResumeRequest
		err := readBody(w, r, &req)
		return replicate.Command{Kind: replicate.CmdResume, WithError: req.Error}, err
	case "suspend":
		return replicate.Command{Kind: replicate.CmdSuspend}, readBody(w, r, &struct{}{})
	case "grant":
		var req GrantRequest
		if err := readBody(w, r, &req); err != nil {
			return c, err
		}
		if req.Generation == 0 || req.LeaseEnd < 0 {
			return c, exit.New(exit.Usage, "docs/api.md shows the bodies", "a grant has a generation, and the end of a lease is not negative")
		}
		return replicate.Command{Kind: replicate.CmdGrant, Grant: &replicate.Grant{
			Generation: req.Generation, Incarnation: req.Incarnation, Peer: req.Peer, Owner: req.Owner, PeerOwner: req.PeerOwner, Hold: req.Hold,
			Adding: req.Adding, Until: replicate.Instant(req.LeaseEnd),
		}}, nil
	case "recover":
		var req RecoverRequest
		if err := readBody(w, r, &req); err != nil {
			return c, err
		}
		if !req.DiscardLocal {
			return c, exit.New(exit.Usage, "add --discard-local on the node whose changes are to be given up",
				"recover gives up the changes of one node, and it was not said that they are this node's")
		}
		return replicate.Command{Kind: replicate.CmdRecover}, nil
	}
	return c, exit.New(exit.Usage, "docs/api.md lists the requests", "no such command: %s", printable(r.PathValue("command")))
}

// readBody decodes a JSON body; an empty one leaves v as it is.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more than one JSON value")
	}
	return exit.New(exit.Usage, "docs/api.md shows the bodies", "body of %s %s: %v", r.Method, printable(r.URL.Path), err)
}

func (s *common) reload(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	res, err := s.d.Reload(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	res.Daemon = s.program
	if res.Changed == nil {
		res.Changed = []string{}
	}
	if res.Restart == nil {
		res.Restart = []string{}
	}
	answer(w, http.StatusOK, res)
}

// events streams one JSON object a line until the client leaves.
func (s *common) events(w http.ResponseWriter, r *http.Request) {
	events, stop := s.d.Subscribe()
	defer stop()
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	enc := json.NewEncoder(w)
	for {
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case ev, ok := <-events:
			if !ok {
				return
			}
			if enc.Encode(ev) != nil {
				return
			}
		}
	}
}

// bound gives the context of a request, which ends after ?timeout=.
func bound(r *http.Request) (context.Context, context.CancelFunc, error) {
	d := DefaultTimeout
	if s := r.URL.Query().Get("timeout"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil || d <= 0 || d > MaxTimeout {
			return nil, nil, exit.New(exit.Usage, fmt.Sprintf("write for example timeout=30s, at most %v", MaxTimeout), "timeout %q is not usable", printable(s))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	return ctx, cancel, nil
}

// HTTPStatus is the HTTP status that goes with an exit code.
func HTTPStatus(c exit.Code) int {
	switch c {
	case exit.Usage: // an unknown name is 404
		return http.StatusBadRequest
	case exit.Unreachable:
		return http.StatusServiceUnavailable
	case exit.CantCreate:
		return http.StatusInsufficientStorage
	case exit.IO:
		return http.StatusBadGateway
	case exit.Again:
		return http.StatusConflict
	case exit.Refused:
		return http.StatusForbidden
	case exit.Config:
		return http.StatusUnprocessableEntity
	}
	return http.StatusInternalServerError
}

// classify turns what the backend returned into what the client is told.
func classify(err error) Failure {
	f := Failure{Error: err.Error(), Hint: exit.HintOf(err), Code: exit.CodeOf(err)}
	var refusal *replicate.Refusal
	switch {
	case errors.As(err, &refusal):
		f.Hint = refusal.Hint
		switch refusal.Code {
		case replicate.RefusedBusy:
			f.Code = exit.Again
		case replicate.RefusedPolicy:
			f.Code = exit.Refused
		case replicate.RefusedIO:
			f.Code = exit.IO
		default:
			f.Code = exit.Internal
		}
	case errors.Is(err, context.DeadlineExceeded):
		f.Code = exit.Again
	case errors.Is(err, context.Canceled):
		f = Failure{Error: "the daemon is stopping; the command may have been carried out", Hint: "ask for the state once it runs again", Code: exit.Again}
	}
	return f
}

func fail(w http.ResponseWriter, err error) {
	f := classify(err)
	answer(w, HTTPStatus(f.Code), f)
}

func notFound(w http.ResponseWriter, err error) {
	answer(w, http.StatusNotFound, classify(err))
}

func answer(w http.ResponseWriter, status int, v any) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a client that left is its own loss
}

// maxShown is how much of a client's own words a message repeats, in bytes.
const maxShown = 80

func printable(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	b := []rune(s)
	for i, r := range b {
		if r < ' ' || r == 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}
