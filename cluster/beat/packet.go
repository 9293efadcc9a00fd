package beat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// A packet, all numbers big endian:
//
//	 0  magic "hb", version, flags (1: made with a key)
//	 4  cluster: 8 bytes of a hash of its name, in clear, so that another cluster's
//	    packet is told from one made with another key
//	12  sender, addressee, link, kind, piece, pieces, payload's length (2)
//	20  sender's incarnation, sequence on this link to this node, number of the message
//	44  send time on the sender's CLOCK_BOOTTIME
//	52  echo: incarnation, sequence and send time of what was heard last from the
//	    addressee on this link, and how many microseconds ago that was
//	80  payload
//	    code: 16 bytes over all before
const (
	version    = 1
	flagKeyed  = 1
	headSize   = 80
	codeSize   = 16
	tagSize    = 8
	payloadMax = MaxPacket - headSize - codeSize
)

// MaxPacket is the longest packet: it passes every network in one piece.
const MaxPacket = 1400

// Kind is what a packet is.
type Kind uint8

const (
	KindBeat    Kind = 1 // the payload is a Beat
	KindMessage Kind = 2 // the payload is a piece of a message
)

// Echo is the last packet heard from whom a packet goes to.
type Echo struct {
	Incarnation uint64 // 0: nothing was heard
	Sequence    uint64
	Sent        Instant // on the clock of whom it is given back to
	Age         uint32  // microseconds since it was heard
}

// Packet is one in clear.
type Packet struct {
	From, To      NodeID
	Link          LinkID
	Kind          Kind
	Piece, Pieces uint8 // of a message
	Incarnation   uint64
	Sequence      uint64
	Message       uint64 // which message this is a piece of
	Sent          Instant
	Echo          Echo
	Payload       []byte
}

// Fault says why a packet is not believed.
type Fault uint8

const (
	FaultNone    Fault = iota
	FaultSource        // from an address that is no other node's on this link
	FaultRate          // more than may come
	FaultLength        // too short, too long, or not as long as it says
	FaultVersion       // another version, or no heartbeat at all
	FaultCluster       // of another cluster
	FaultSecured       // one of both has no key
	FaultKey           // made with another key, or damaged
	FaultContent       // a field that cannot be
	FaultNode          // a sender that is no other node, or one not on this link, or not for us
	FaultReplay        // seen before
	FaultStale         // it does not show that its sender hears us now: old, or one-way
	FaultFuture        // it gives back what we did not send yet
	faults
)

// Faults is how many kinds there are.
const Faults = int(faults)

var faultNames = [...]string{"none", "source", "rate", "length", "version", "cluster", "secured", "key", "content", "node", "replay", "stale", "future"}

func (f Fault) String() string { return faultNames[f] }

// Codec makes and checks packets of one cluster. It serves one goroutine.
type Codec struct {
	tag   [tagSize]byte
	keyed bool
	mac   hash.Hash
	sum   [sha256.Size]byte
}

// NewCodec makes one. Without a key (a cluster that is insecure) the code is a
// checksum: it finds damage, and another cluster's packets, and nobody's malice.
func NewCodec(cluster string, key []byte) *Codec {
	c := &Codec{keyed: len(key) > 0}
	tag := sha256.Sum256([]byte("hast heartbeat cluster\x00" + cluster))
	copy(c.tag[:], tag[:])
	own := hmac.New(sha256.New, key)
	own.Write([]byte("hast heartbeat 1\x00" + cluster))
	c.mac = hmac.New(sha256.New, own.Sum(nil))
	return c
}

func (c *Codec) code(b []byte) []byte {
	c.mac.Reset()
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])[:codeSize]
}

// Seal appends a packet as it travels.
func (c *Codec) Seal(dst []byte, p *Packet) []byte {
	if len(p.Payload) > payloadMax {
		panic("beat: a payload too long for a packet")
	}
	start := len(dst)
	flags := byte(0)
	if c.keyed {
		flags |= flagKeyed
	}
	be := binary.BigEndian
	dst = append(dst, 'h', 'b', version, flags)
	dst = append(dst, c.tag[:]...)
	dst = append(dst, byte(p.From), byte(p.To), byte(p.Link), byte(p.Kind), p.Piece, p.Pieces)
	dst = be.AppendUint16(dst, uint16(len(p.Payload)))
	for _, v := range [...]uint64{p.Incarnation, p.Sequence, p.Message, uint64(p.Sent), p.Echo.Incarnation, p.Echo.Sequence, uint64(p.Echo.Sent)} {
		dst = be.AppendUint64(dst, v)
	}
	dst = be.AppendUint32(dst, p.Echo.Age)
	dst = append(dst, p.Payload...)
	return append(dst, c.code(dst[start:])...)
}

// peek reads what stands in clear, with no more than comparisons.
func (c *Codec) peek(b []byte) (Packet, Fault) {
	switch {
	case len(b) < headSize+codeSize || len(b) > MaxPacket:
		return Packet{}, FaultLength
	case b[0] != 'h' || b[1] != 'b' || b[2] != version || b[3]&^flagKeyed != 0:
		return Packet{}, FaultVersion
	case [tagSize]byte(b[4:]) != c.tag:
		return Packet{}, FaultCluster
	case b[3]&flagKeyed != 0 != c.keyed:
		return Packet{}, FaultSecured
	case headSize+int(binary.BigEndian.Uint16(b[18:]))+codeSize != len(b):
		return Packet{}, FaultLength
	}
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	return Packet{
		From: NodeID(b[12]), To: NodeID(b[13]), Link: LinkID(b[14]), Kind: Kind(b[15]), Piece: b[16], Pieces: b[17],
		Incarnation: u64(20), Sequence: u64(28), Message: u64(36), Sent: Instant(u64(44)),
		Echo:    Echo{u64(52), u64(60), Instant(u64(68)), binary.BigEndian.Uint32(b[76:])},
		Payload: b[headSize : len(b)-codeSize],
	}, FaultNone
}

// open checks the code of what peek has read, and the fields.
func (c *Codec) open(b []byte, p *Packet) Fault {
	n := len(b) - codeSize
	switch {
	case !hmac.Equal(c.code(b[:n]), b[n:]):
		return FaultKey
	case p.From > MaxID || p.To > MaxID || int(p.Link) >= MaxLinks && p.Link != Serial,
		p.Incarnation == 0 || p.Sequence == 0 || p.Sent < 0 || p.Echo.Sent < 0,
		p.Echo.Incarnation == 0 && p.Echo != (Echo{}):
		return FaultContent
	}
	switch p.Kind {
	case KindBeat:
		if p.Pieces != 0 || p.Piece != 0 || p.Message != 0 {
			return FaultContent
		}
	case KindMessage:
		if p.Piece >= p.Pieces || p.Pieces > MaxPieces || len(p.Payload) == 0 || p.Message == 0 {
			return FaultContent
		}
	default:
		return FaultContent
	}
	return FaultNone
}

// Open reads a packet. The payload is part of b.
func (c *Codec) Open(b []byte) (Packet, Fault) {
	p, fault := c.peek(b)
	if fault == FaultNone {
		fault = c.open(b, &p)
	}
	if fault != FaultNone {
		return Packet{}, fault
	}
	return p, FaultNone
}
