package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"hastd/cmd/internal/exit"
)

const (
	dialTimeout = 5 * time.Second
	// grace is how much longer than the daemon the client waits: the daemon's own
	// word on a time-out says more than the client's.
	grace = time.Second
)

// Client talks to the daemon behind one control socket. Its methods return
// *exit.Error.
type Client struct {
	daemon  string // its program's name, for messages
	socket  string
	timeout time.Duration
	http    *http.Client
}

// NewClient makes a client of hastd; timeout bounds every command, and of Events the
// time until the daemon begins to answer.
func NewClient(socket string, timeout time.Duration) *Client {
	return newClient("hastd", socket, timeout)
}

func newClient(daemon, socket string, timeout time.Duration) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{daemon, socket, timeout, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Within is the client with another bound for each command.
func (c *Client) Within(timeout time.Duration) *Client {
	other := *c
	other.timeout = timeout
	return &other
}

// Status asks for all resources.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, "GET", "/v1/resources", nil, &s)
}

// Resource asks for one resource.
func (c *Client) Resource(ctx context.Context, name string) (Resource, error) {
	var r Resource
	return r, c.call(ctx, "GET", "/v1/resources/"+url.PathEscape(name), nil, &r)
}

// Command posts a command ("role", "connect" …) and returns the resource as it is
// afterwards. body is one of the request types, or nil.
func (c *Client) Command(ctx context.Context, name, command string, body any) (Resource, error) {
	var r Resource
	return r, c.call(ctx, "POST", "/v1/resources/"+url.PathEscape(name)+"/"+command, body, &r)
}

// Reload makes the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (ReloadResult, error) {
	var r ReloadResult
	return r, c.call(ctx, "POST", "/v1/reload", nil, &r)
}

// Version asks which daemon is running.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	return v, c.call(ctx, "GET", "/v1/version", nil, &v)
}

// Events calls each for every event until ctx ends (nil), each returns an error
// (that error), or the daemon goes away. started, if not nil, is called once the
// subscription stands.
func (c *Client) Events(ctx context.Context, started func(), each func(Event) error) error {
	ask, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(c.timeout+grace, cancel)
	resp, err := c.do(ask, "GET", "/v1/events", nil)
	if !late.Stop() && ctx.Err() == nil {
		if err == nil {
			resp.Body.Close()
		}
		return c.unreachable(context.DeadlineExceeded)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.failure(resp)
	}
	if started != nil {
		started()
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 4096), MaxEvent)
	for lines.Scan() {
		var ev Event
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			return exit.New(exit.Internal, "are hastctl and "+c.daemon+" of the same release?", "event of %s is not understood: %v", c.socket, err)
		}
		if err := each(ev); err != nil {
			return err
		}
		if ev.Kind == KindDropped {
			return exit.New(exit.Again, "follow them again, and read them faster", "events were missed: they were not read fast enough")
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return exit.New(exit.Unreachable, "look at the daemon's log; hastctl events follows it again once it runs",
		"the daemon behind %s went away", c.socket)
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+grace)
	defer cancel()
	resp, err := c.do(ctx, method, path+"?timeout="+c.timeout.String(), body)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.failure(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxAnswer)).Decode(into); err != nil {
		if ctx.Err() != nil {
			return c.unreachable(err)
		}
		return exit.New(exit.Internal, "are hastctl and "+c.daemon+" of the same release?", "answer of the daemon behind %s is not understood: %v", c.socket, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hastd"+path, r)
	if err != nil {
		return nil, err
	}
	return c.http.Do(req)
}

// failure reads what the daemon said.
func (c *Client) failure(resp *http.Response) error {
	var f Failure
	err := json.NewDecoder(io.LimitReader(resp.Body, MaxAnswer)).Decode(&f)
	if err != nil || f.Error == "" {
		return exit.New(exit.Internal, "is it the control socket of "+c.daemon+"?", "the daemon behind %s answered %s", c.socket, resp.Status)
	}
	if f.Code == exit.OK {
		f.Code = exit.Internal
	}
	return &exit.Error{Code: f.Code, Text: f.Error, Hint: f.Hint}
}

// unreachable says why there was no answer.
func (c *Client) unreachable(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return exit.New(exit.Unreachable, "start it with systemctl start "+c.daemon+", or give its socket with --control",
			"%s is not running: nobody listens on %s", c.daemon, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return exit.New(exit.Unreachable, "run hastctl as root or as a member of the group hast",
			"user %d may not use the control socket %s", os.Getuid(), c.socket)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return exit.New(exit.Again, "look whether "+c.daemon+" hangs: its log, or kill -QUIT for a trace",
			"%s behind %s did not answer within %v", c.daemon, c.socket, c.timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return exit.New(exit.Unreachable, "it was stopped or ended by itself: look at its log, then at hastctl status",
			"%s behind %s went away without an answer", c.daemon, c.socket)
	case errors.Is(err, context.Canceled):
		return exit.New(exit.Again, "the daemon may still carry it out: look at hastctl status", "interrupted")
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return exit.New(exit.Unreachable, "look at the daemon's log", "%s behind %s: %w", c.daemon, c.socket, err)
}
