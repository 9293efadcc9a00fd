package transport

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
)

// The handshake of one TCP connection, client's words left, server's right:
//
//	hello  →          names, versions, kind, nonce
//	       ← hello    the same, version chosen, session id     | refusal
//	proof  →          HMAC, role, build                         | refusal
//	       ← proof    HMAC, role, build                         | refusal
//
// The client proves itself first, so a stranger gets nothing that was computed
// from the key. The control connection comes first; its handshake yields the
// session id and the secret with which the data connection is proved. The session
// stands once the data connection's last message arrived.

// shaken is what a finished handshake leaves behind.
type shaken struct {
	hello *hello // the peer's
	facts *facts
	keys  *keys
}

func sendMessage(c net.Conn, v any) ([]byte, error) {
	b, err := putMessage(nil, v)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	return b[8:], nil
}

// hello of this side for one connection.
func (o *Options) hello(kind, session string, path int) *hello {
	return &hello{
		Cluster: o.Cluster, Resource: o.Resource, From: o.Node, To: o.Peer,
		Min: MinVersion, Max: MaxVersion,
		Kind: kind, Nonce: randomHex(nonceBytes), Session: session, Path: path,
		Secured: !o.Insecure,
	}
}

func (o *Options) facts() ([]byte, error) {
	return json.Marshal(&facts{
		Role: clip(o.role(), maxName), Build: clip(o.Build, maxName),
		Instance: clip(o.Instance, maxName), Shared: o.SharedHash,
	})
}

// fits judges the peer's hello; both sides ask it, so a server that is not what
// the client expects is refused as well.
func (o *Options) fits(h *hello) *Refused {
	switch {
	case h.Cluster != o.Cluster:
		return refuse(CodeCluster, "node %s belongs to cluster %q, node %s to %q: set the same [cluster] name on both", o.Node, o.Cluster, printable(h.From, maxName), printable(h.Cluster, maxName))
	case h.Resource != o.Resource:
		return refuse(CodeResource, "asked for resource %q, answered for %q", o.Resource, printable(h.Resource, maxName))
	case h.To != o.Node:
		return refuse(CodeNode, "this is node %s, not %s: check the addresses in the configuration", o.Node, printable(h.To, maxName))
	case h.From != o.Peer:
		return refuse(CodeNode, "node %s expects node %s as the peer of resource %s, not %s", o.Node, o.Peer, o.Resource, printable(h.From, maxName))
	case commonVersion(h) == 0:
		return refuse(CodeVersion, "node %s speaks protocol versions %d to %d, node %s speaks %d to %d: upgrade the older one", o.Node, MinVersion, MaxVersion, h.From, h.Min, h.Max)
	case h.Secured && o.Insecure:
		return refuse(CodeKey, "node %s runs without a cluster key (insecure = true), node %s has one: give both the same key-file", o.Node, h.From)
	case !h.Secured && !o.Insecure:
		return refuse(CodeKey, "node %s demands the cluster key, node %s runs without one (insecure = true): give both the same key-file", o.Node, h.From)
	}
	return nil
}

// clientShake is the dialing side. The caller has set a deadline on c.
func clientShake(c net.Conn, o *Options, kind, session string, path int, secret []byte) (*shaken, error) {
	mine := o.hello(kind, session, path)
	sent, err := sendMessage(c, mine)
	if err != nil {
		return nil, err
	}
	got, err := readMessage(c)
	if err != nil {
		return nil, err
	}
	theirs, err := parseHello(got)
	if err != nil {
		return nil, err
	}
	if theirs.Refused != nil {
		return nil, &Refused{Code: theirs.Refused.Code, Reason: theirs.Refused.Reason, Remote: true}
	}
	no := o.fits(theirs)
	switch {
	case no != nil:
	case theirs.Version != commonVersion(theirs):
		no = refuse(CodeVersion, "the server chose version %d", theirs.Version)
	case theirs.Kind != kind, theirs.Nonce == mine.Nonce, theirs.Session == "", session != "" && theirs.Session != session:
		no = refuse(CodeBad, "the answer does not belong to the question")
	}
	if no != nil {
		_, _ = sendMessage(c, &proof{Refused: &refusal{Code: no.Code, Reason: no.Reason}}) // the session is off either way
		return nil, no
	}
	k, err := deriveKeys(secret, kind, mine.Nonce, theirs.Nonce, sent, got)
	if err != nil {
		return nil, err
	}
	p := new(proof)
	if p.Facts, err = o.facts(); err != nil {
		return nil, err
	}
	if !o.Insecure {
		p.Proof = k.clientProof(p.Facts)
	}
	if _, err = sendMessage(c, p); err != nil {
		return nil, err
	}
	if got, err = readMessage(c); err != nil {
		return nil, err
	}
	q, f, err := parseProof(got)
	if err != nil {
		return nil, err
	}
	if q.Refused != nil {
		return nil, &Refused{Code: q.Refused.Code, Reason: q.Refused.Reason, Remote: true}
	}
	if err := checkProof(o, q.Proof, k.serverProof(p.Proof, q.Facts)); err != nil {
		return nil, err
	}
	return &shaken{hello: theirs, facts: f, keys: k}, nil
}

// serverAnswer is the listening side after the client's hello was read and found
// fitting: it sends our hello and takes the client's proof. The session id is
// the one to announce. approve is asked once the client has proved itself.
func serverAnswer(c net.Conn, o *Options, theirs *hello, raw []byte, session string, secret []byte, approve func(*shaken) *Refused) (*shaken, error) {
	mine := o.hello(theirs.Kind, session, theirs.Path)
	mine.Version = commonVersion(theirs)
	if theirs.Nonce == mine.Nonce {
		return nil, errNoHello
	}
	sent, err := sendMessage(c, mine)
	if err != nil {
		return nil, err
	}
	got, err := readMessage(c)
	if err != nil {
		return nil, err
	}
	p, f, err := parseProof(got)
	if err != nil {
		return nil, err
	}
	if p.Refused != nil {
		return nil, &Refused{Code: p.Refused.Code, Reason: p.Refused.Reason, Remote: true}
	}
	k, err := deriveKeys(secret, theirs.Kind, theirs.Nonce, mine.Nonce, raw, sent)
	if err != nil {
		return nil, err
	}
	s := &shaken{hello: theirs, facts: f, keys: k}
	if err := checkProof(o, p.Proof, k.clientProof(p.Facts)); err != nil {
		no := err.(*Refused)
		_, _ = sendMessage(c, &proof{Refused: &refusal{Code: no.Code, Reason: no.Reason}})
		return nil, no
	}
	if no := approve(s); no != nil {
		_, _ = sendMessage(c, &proof{Refused: &refusal{Code: no.Code, Reason: clip(no.Reason, maxReason)}})
		return nil, no
	}
	q := new(proof)
	if q.Facts, err = o.facts(); err != nil {
		return nil, err
	}
	if !o.Insecure {
		q.Proof = k.serverProof(p.Proof, q.Facts)
	}
	if _, err = sendMessage(c, q); err != nil {
		return nil, err
	}
	return s, nil
}

// checkProof compares in constant time; without a key there must be none.
func checkProof(o *Options, got, want string) error {
	if o.Insecure {
		want = ""
	}
	if !sameProof(got, want) {
		return refuse(CodeKey, "the cluster keys of node %s and node %s differ: give both the same key-file", o.Node, o.Peer)
	}
	return nil
}

// sendRefusal tells a client, in place of our hello, why it is not served.
func sendRefusal(c net.Conn, no *Refused) {
	_, _ = sendMessage(c, &hello{Refused: &refusal{Code: no.Code, Reason: clip(no.Reason, maxReason)}})
}

// asRefused turns any error of a callback into a refusal; a *Refused stays.
func asRefused(code Code, err error) *Refused {
	var r *Refused
	if errors.As(err, &r) {
		return r
	}
	return &Refused{Code: code, Reason: err.Error()}
}

// tune sets what both connections of a session need from TCP.
func tune(c *net.TCPConn, o *Options) error {
	if err := c.SetNoDelay(true); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	return setUserTimeout(c, o.Timeout)
}
