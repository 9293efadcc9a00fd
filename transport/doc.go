// Package transport is the wire between the two nodes of one resource: an
// authenticated session made of two TCP connections, one for data and one for
// keepalive, so that a heartbeat never waits behind data. PROTOCOL.md describes
// every byte.
//
// The runner of a resource calls it: the node with the lower id owns a Dialer,
// the other one registers the resource with the node's Listener; both get a
// Session, call Serve with a Handler and Send frames. Losing either connection
// ends the session; the dialer then tries the next path at once.
//
// It knows nothing of replication: what a frame means, whether a peer may be
// primary, what must be sent again after a loss is the caller's. It never
// retries a frame, never drops one silently while the session lives, and never
// blocks in Send.
//
// What authentication is worth. Peers prove the cluster key to each other with a
// challenge-response that covers both hellos; an attacker who cannot change
// packets on the path can neither open a session nor join one. Frames after the
// handshake carry CRC32C against faulty hardware, not a MAC: without TLS, an
// attacker on the path can read and change what flows, and this is out of scope.
package transport
