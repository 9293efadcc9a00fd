package ha

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/exit"
)

// What the client does, in its own place and process: it knows the service address
// and nothing else.

const (
	putEvery   = 5 * time.Millisecond
	putTimeout = 400 * time.Millisecond // then the same record is tried again
	getTimeout = 5 * time.Second
	// retryPause keeps a client whose tries fail at once from trying all the time.
	retryPause = 20 * time.Millisecond
	recordSize = 512
)

// request is one try, a line of JSON.
type request struct {
	N     uint32        `json:"n"`
	Begin time.Duration `json:"begin"` // by the clock of the machine, which all places share
	End   time.Duration `json:"end"`
	OK    bool          `json:"ok"`
	Node  string        `json:"node,omitempty"`  // that answered
	Error string        `json:"error,omitempty"` // without answer, or not a good one
	Lost  string        `json:"lost,omitempty"`  // read back: what is wrong
}

// clock is CLOCK_MONOTONIC.
func clock() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

// content is what a record must hold: it follows from the number and the run.
func content(seed string, n uint32) []byte {
	var b []byte
	for i := uint32(0); len(b) < recordSize; i++ {
		h := sha256.New()
		io.WriteString(h, seed)
		binary.Write(h, binary.BigEndian, [2]uint32{n, i})
		b = h.Sum(b)
	}
	return b[:recordSize]
}

// Load carries out what the client does: "put" writes one record after the other
// until ctx ends, "get" reads records 1 to last back once. Each try is a line.
func Load(ctx context.Context, out io.Writer, verb, address, seed string, last uint32) error {
	d := net.Dialer{Timeout: putTimeout}
	c := &loader{
		client: http.Client{Transport: &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 1}},
		base:   "http://" + address + recordsPrefix, seed: seed, out: json.NewEncoder(out),
	}
	switch verb {
	case "put":
		return c.put(ctx)
	case "get":
		return c.get(ctx, last)
	}
	return exit.New(exit.Usage, "write put or get", "the client knows no %q", verb)
}

type loader struct {
	client http.Client
	base   string
	seed   string
	out    *json.Encoder
}

func (c *loader) put(ctx context.Context) error {
	next := time.NewTicker(putEvery)
	defer next.Stop()
	for n := uint32(1); ; {
		r, _ := c.try(ctx, http.MethodPut, n, putTimeout)
		if ctx.Err() != nil {
			// Ended in the middle of a try: nobody was answered.
			return nil
		}
		if err := c.out.Encode(r); err != nil {
			return err
		}
		if r.OK {
			n++
		} else {
			c.client.CloseIdleConnections()
			pause(ctx, retryPause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *loader) get(ctx context.Context, last uint32) error {
	for n := uint32(1); n <= last && ctx.Err() == nil; n++ {
		r, b := c.try(ctx, http.MethodGet, n, getTimeout)
		switch {
		case r.OK && !bytes.Equal(b, content(c.seed, n)):
			r.Lost = "it has another content"
		case r.Error == notFound:
			r.Lost = "it is not there"
		}
		if err := c.out.Encode(r); err != nil {
			return err
		}
	}
	return ctx.Err()
}

const notFound = "404 Not Found"

// try makes one request.
func (c *loader) try(ctx context.Context, method string, n uint32, limit time.Duration) (request, []byte) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r := request{N: n, Begin: clock()}
	var body io.Reader
	if method == http.MethodPut {
		body = bytes.NewReader(content(c.seed, n))
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprint(c.base, n), body)
	var b []byte
	if err == nil {
		var resp *http.Response
		if resp, err = c.client.Do(req); err == nil {
			b, err = io.ReadAll(io.LimitReader(resp.Body, maxRecord))
			resp.Body.Close()
			r.Node = resp.Header.Get(nodeHeader)
			if err == nil && resp.StatusCode/100 != 2 {
				err = errors.New(resp.Status)
			}
		}
	}
	r.End = clock()
	if r.OK = err == nil; !r.OK {
		r.Error = cause(err)
	}
	return r, b
}

// cause is the short form of what went wrong.
func cause(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer in time"
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var o *net.OpError
	if errors.As(err, &o) {
		err = o.Err
	}
	return err.Error()
}
