package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Status is a resource as GET /v1/resources/NAME tells it: the part of the
// contract that the lab looks at.
type Status struct {
	Name        string
	Role        string
	Status      string
	Connection  string
	Disk        string
	Replication string
	Provider    *struct {
		Kind, Path string
		Size       int64
	}
	Peer struct {
		Node, Role, Disk, Address string
	}
	Resuid     string
	LocalCnt   uint64
	RemoteCnt  uint64
	Epoch      uint64
	DirtyBytes int64 `json:"dirty_bytes"`
	Sync       struct {
		State, Direction string
		BytesDone        int64 `json:"bytes_done"`
		BytesLeft        int64 `json:"bytes_left"`
	}
	IO struct {
		Suspended bool
		Reason    string
	}
	Reason string
	Marks  []string
}

func (s Status) String() string {
	return fmt.Sprintf("%s %s, connection %s, disk %s, peer %s/%s, counters %d/%d, epoch %d, dirty %d, sync %s %s %d left, suspended %v %s (%s)",
		s.Role, s.Status, s.Connection, s.Disk, s.Peer.Role, s.Peer.Disk, s.LocalCnt, s.RemoteCnt, s.Epoch, s.DirtyBytes,
		s.Sync.State, s.Sync.Direction, s.Sync.BytesLeft, s.IO.Suspended, s.IO.Reason, s.Reason)
}

// Refusal is an error the daemon answered.
type Refusal struct {
	Code       int
	Text, Hint string
	HTTPStatus int
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("refused with code %d: %s (hint: %s)", r.Code, r.Text, r.Hint)
}

// Codes of refusals the tests care about.
const (
	CodeBusy    = 75
	CodeRefused = 77
)

// apiClient talks to one control socket.
type apiClient struct{ http *http.Client }

func newAPI(socket string) apiClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return apiClient{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// call does one request within limit; the daemon is told a little less.
func (a apiClient) call(method, path string, limit time.Duration, body, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit+2*time.Second)
	defer cancel()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hastd"+path+"?timeout="+limit.String(), in)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var f struct {
			Error, Hint string
			Code        int
		}
		if err := json.Unmarshal(b, &f); err != nil || f.Error == "" {
			return fmt.Errorf("lab: %s %s: %s: %s", method, path, resp.Status, b)
		}
		return &Refusal{Code: f.Code, Text: f.Error, Hint: f.Hint, HTTPStatus: resp.StatusCode}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("lab: %s %s: %w in %s", method, path, err, b)
	}
	return nil
}
