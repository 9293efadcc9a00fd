package transport

import "sync/atomic"

// Metrics counts what an endpoint did over all its sessions. Everything only
// grows; readers may look at any time.
type Metrics struct {
	Sessions       atomic.Uint64 // sessions established
	FramesSent     atomic.Uint64 // on the data connection
	FramesReceived atomic.Uint64
	BytesSent      atomic.Uint64 // on the data connection, headers included, as sent
	BytesReceived  atomic.Uint64
	BodySent       atomic.Uint64 // body bytes before compression
	BodyReceived   atomic.Uint64
	HolesSent      atomic.Uint64 // bodies that were all zeroes and did not travel
	HolesReceived  atomic.Uint64
	Writes         atomic.Uint64 // system calls that sent something
	Reads          atomic.Uint64 // system calls that received something
	ChecksumErrors atomic.Uint64 // bodies that arrived broken; each ended its session
	DialFailures   atomic.Uint64 // attempts of one address that failed
}

// ListenerMetrics counts what reached a Listener.
type ListenerMetrics struct {
	Accepted   atomic.Uint64 // TCP connections
	Refused    atomic.Uint64 // told why: unknown resource, wrong key, not ready ...
	Failed     atomic.Uint64 // no handshake: garbage, silence, hung up
	Dropped    atomic.Uint64 // pushed out of the handshake by newer connections
	Handshakes atomic.Int64  // gauge: under way now
}
