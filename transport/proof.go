package transport

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// keys of one connection. Each is derived from the secret, both nonces and both
// hellos byte for byte, so nothing recorded on one connection is of use on
// another; direction and kind are in the label, so a proof sent back to its
// author is wrong.
//
//	secret of a control connection = cluster key
//	secret of a data connection    = bind of its control connection
type keys struct {
	transcript     [sha256.Size]byte
	client, server []byte
	bind           []byte // control only: what the data connection must know
}

// deriveKeys takes the hellos as they were on the wire (JSON only).
func deriveKeys(secret []byte, kind, clientNonce, serverNonce string, clientHello, serverHello []byte) (*keys, error) {
	h := sha256.New()
	var n [4]byte
	for _, m := range [][]byte{clientHello, serverHello} {
		binary.BigEndian.PutUint32(n[:], uint32(len(m)))
		h.Write(n[:])
		h.Write(m)
	}
	k := new(keys)
	h.Sum(k.transcript[:0])
	prk, err := hkdf.Extract(sha256.New, secret, []byte("hast handshake 1 "+clientNonce+" "+serverNonce))
	if err != nil {
		return nil, err
	}
	for _, out := range []struct {
		to    *[]byte
		label string
	}{{&k.client, "client proves"}, {&k.server, "server proves"}, {&k.bind, "bind data"}} {
		info := "hast 1 " + kind + " " + out.label + " " + string(k.transcript[:])
		if *out.to, err = hkdf.Expand(sha256.New, prk, info, sha256.Size); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// clientProof covers the transcript and the client's facts.
func (k *keys) clientProof(facts []byte) string { return k.mac(k.client, "", facts) }

// serverProof covers the client's proof too: the server speaks second.
func (k *keys) serverProof(clientProof string, facts []byte) string {
	return k.mac(k.server, clientProof, facts)
}

func (k *keys) mac(key []byte, before string, facts []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write(k.transcript[:])
	m.Write([]byte(before)) // fixed length for each direction
	m.Write(facts)
	return hex.EncodeToString(m.Sum(nil))
}

func sameProof(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }
