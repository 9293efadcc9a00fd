package transport

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Limits and times of the protocol. PROTOCOL.md repeats those the peer sees.
const (
	// MinVersion and MaxVersion are the protocol versions this build speaks.
	MinVersion = 1
	MaxVersion = 1

	// MaxBody is the longest body of one frame, in bytes, before compression.
	MaxBody = 33 << 20

	// MinKey is the shortest cluster key: the client's proof could otherwise be
	// guessed by whoever lures it into connecting.
	MinKey = 16

	maxHello     = 64 << 10        // bytes of one handshake message
	maxName      = 255             // bytes of cluster, resource and node names
	maxReason    = 1024            // bytes of a refusal or a bye
	maxShared    = 64              // entries of SharedHash
	maxPaths     = 64              // paths between two nodes
	maxControl   = maxReason       // body of a control frame
	helloTimeout = 5 * time.Second // for a whole handshake, whatever dribbles in
	closeLinger  = time.Second     // a clean close waits so long for its last bytes
	maxPing      = time.Second     // at most between two pings
	minTimeout   = 100 * time.Millisecond
)

// Options describe one endpoint: one resource on one node.
type Options struct {
	Cluster, Resource string
	Node, Peer        string // this node and the one expected at the other end

	Key      []byte // shared secret of the cluster, at least MinKey bytes
	Insecure bool   // no key: both sides must say so

	Checksum    string // of bodies this side sends: "none" | "crc32c" | "xxh3" | "sha256"
	Compression string // of bodies this side sends: "none" | "hole" | "lz4" | "zstd"

	// Timeout is the silence on the control connection, or the time without one
	// byte leaving on a blocked data connection, after which the peer is lost.
	Timeout time.Duration

	Instance   string            // tells one run of the process from the next; random when empty
	Role       func() string     // told to the peer once it has proved itself; may be nil
	Build      string            // likewise
	SharedHash map[string]string // likewise; the caller compares

	Logger  *slog.Logger // nil: silent
	Metrics *Metrics     // nil: not counted
}

// settle fills defaults and says what is wrong with the rest.
func (o *Options) settle() error {
	for _, n := range []struct{ what, v string }{
		{"cluster", o.Cluster}, {"resource", o.Resource}, {"node", o.Node}, {"peer", o.Peer},
	} {
		if n.v == "" || len(n.v) > maxName {
			return fmt.Errorf("transport: %s name %q must have 1 to %d bytes", n.what, n.v, maxName)
		}
	}
	if o.Node == o.Peer {
		return fmt.Errorf("transport: resource %s: node %q cannot be its own peer", o.Resource, o.Node)
	}
	switch {
	case o.Insecure && len(o.Key) > 0:
		return errors.New("transport: a cluster key and insecure = true exclude each other: remove one")
	case !o.Insecure && len(o.Key) < MinKey:
		return fmt.Errorf("transport: the cluster key has %d bytes, at least %d are needed: make one with `hastctl keygen`", len(o.Key), MinKey)
	}
	if o.Timeout < minTimeout {
		return fmt.Errorf("transport: resource %s: timeout %v is below %v", o.Resource, o.Timeout, minTimeout)
	}
	if _, ok := sumByName[o.Checksum]; !ok {
		return fmt.Errorf("transport: resource %s: unknown checksum %q: none, crc32c, xxh3 or sha256", o.Resource, o.Checksum)
	}
	if _, ok := packByName[o.Compression]; !ok {
		return fmt.Errorf("transport: resource %s: unknown compression %q: none, hole, lz4 or zstd", o.Resource, o.Compression)
	}
	if len(o.SharedHash) > maxShared {
		return fmt.Errorf("transport: resource %s: %d shared hashes, at most %d", o.Resource, len(o.SharedHash), maxShared)
	}
	if o.Instance == "" {
		o.Instance = randomHex(8)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	return nil
}

func (o *Options) role() string {
	if o.Role == nil {
		return ""
	}
	return o.Role()
}

func (o *Options) pingEvery() time.Duration { return min(o.Timeout/4, maxPing) }

// randomHex returns n random bytes as 2n hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the process instead
	return hex.EncodeToString(b)
}
