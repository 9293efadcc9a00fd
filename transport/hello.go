package transport

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A handshake message is helloMagic, its length (big endian, at most maxHello)
// and JSON. Unknown fields are ignored, so that newer nodes may say more.
const helloMagic = "HAST"

const (
	nonceBytes   = 32
	sessionBytes = 16
	proofBytes   = 32
	kindControl  = "control"
	kindData     = "data"
)

// hello opens a connection, the client's first. It tells nothing that a stranger
// could use; roles and builds follow in the proof.
type hello struct {
	Cluster  string   `json:"cluster"`
	Resource string   `json:"resource"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Min      uint16   `json:"min"`               // oldest protocol version spoken
	Max      uint16   `json:"max"`               // newest
	Version  uint16   `json:"version,omitempty"` // server: the one chosen
	Kind     string   `json:"kind"`              // control or data
	Nonce    string   `json:"nonce"`             // hex, fresh for each connection
	Session  string   `json:"session,omitempty"` // hex; the server's choice on control, repeated on data
	Path     int      `json:"path"`              // which pair of addresses
	Secured  bool     `json:"secured"`           // a proof is given and expected
	Refused  *refusal `json:"refused,omitempty"` // server: instead of all the above
}

// refusal replaces what one side would have said next.
type refusal struct {
	Code   Code   `json:"code"`
	Reason string `json:"reason"`
}

// proof is the second message of each side.
type proof struct {
	Proof   string          `json:"proof,omitempty"` // hex HMAC-SHA256; empty when insecure
	Facts   json.RawMessage `json:"facts,omitempty"` // covered by Proof, byte for byte
	Refused *refusal        `json:"refused,omitempty"`
}

// facts is what the sides tell each other about themselves.
type facts struct {
	Role     string            `json:"role"`
	Build    string            `json:"build"`
	Instance string            `json:"instance"`
	Shared   map[string]string `json:"shared,omitempty"`
}

var errNoHello = errors.New("not a handshake")

// putMessage appends one handshake message to b.
func putMessage(b []byte, v any) ([]byte, error) {
	j, err := json.Marshal(v)
	if err != nil {
		return b, err
	}
	if len(j) > maxHello {
		return b, fmt.Errorf("handshake message of %d bytes exceeds %d", len(j), maxHello)
	}
	b = append(b, helloMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(j)))
	return append(b, j...), nil
}

// readMessage reads one handshake message; JSON as received.
func readMessage(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, err
	}
	if string(head[:4]) != helloMagic { // no need to wait for more from a web browser
		return nil, errNoHello
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[4:])
	if n == 0 || n > maxHello {
		return nil, fmt.Errorf("%w: message of %d bytes, at most %d", errNoHello, n, maxHello)
	}
	j := make([]byte, n)
	_, err := io.ReadFull(r, j)
	return j, err
}

// parseHello checks form and limits, not whether the hello fits this node.
func parseHello(j []byte) (*hello, error) {
	h := new(hello)
	if err := json.Unmarshal(j, h); err != nil {
		return nil, fmt.Errorf("%w: %v", errNoHello, err)
	}
	if h.Refused != nil {
		return &hello{Refused: h.Refused.clean()}, nil
	}
	for _, n := range []string{h.Cluster, h.Resource, h.From, h.To} {
		if n == "" || len(n) > maxName {
			return nil, fmt.Errorf("%w: a name of %d bytes", errNoHello, len(n))
		}
	}
	if h.Min > h.Max || h.Version > h.Max {
		return nil, fmt.Errorf("%w: versions %d to %d, chosen %d", errNoHello, h.Min, h.Max, h.Version)
	}
	if h.Kind != kindControl && h.Kind != kindData {
		return nil, fmt.Errorf("%w: connection of kind %q", errNoHello, clip(h.Kind, 32))
	}
	if !isHex(h.Nonce, nonceBytes) || h.Session != "" && !isHex(h.Session, sessionBytes) {
		return nil, fmt.Errorf("%w: nonce or session of a wrong form", errNoHello)
	}
	if h.Path < 0 || h.Path >= maxPaths {
		return nil, fmt.Errorf("%w: path %d", errNoHello, h.Path)
	}
	return h, nil
}

// parseProof checks form and limits, not the proof itself.
func parseProof(j []byte) (*proof, *facts, error) {
	p, f := new(proof), new(facts)
	if err := json.Unmarshal(j, p); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", errNoHello, err)
	}
	if p.Refused != nil {
		return &proof{Refused: p.Refused.clean()}, f, nil
	}
	if p.Proof != "" && !isHex(p.Proof, proofBytes) {
		return nil, nil, fmt.Errorf("%w: proof of a wrong form", errNoHello)
	}
	if len(p.Facts) > 0 {
		if err := json.Unmarshal(p.Facts, f); err != nil {
			return nil, nil, fmt.Errorf("%w: %v", errNoHello, err)
		}
	}
	if len(f.Role) > maxName || len(f.Build) > maxName || len(f.Instance) > maxName || len(f.Shared) > maxShared {
		return nil, nil, fmt.Errorf("%w: facts exceed their limits", errNoHello)
	}
	for k, v := range f.Shared {
		if len(k) > maxName || len(v) > maxName {
			return nil, nil, fmt.Errorf("%w: facts exceed their limits", errNoHello)
		}
	}
	return p, f, nil
}

func (r *refusal) clean() *refusal {
	return &refusal{Code: Code(printable(string(r.Code), 32)), Reason: printable(r.Reason, maxReason)}
}

func isHex(s string, n int) bool {
	if len(s) != 2*n {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

// commonVersion is the newest version both sides speak, 0 if there is none.
func commonVersion(h *hello) uint16 {
	v := min(h.Max, MaxVersion)
	if v < h.Min || v < MinVersion {
		return 0
	}
	return v
}
