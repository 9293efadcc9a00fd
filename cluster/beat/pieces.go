package beat

import "slices"

const (
	// MaxPieces bounds a message's pieces, and so what a node keeps of a message that
	// is not whole yet: one for each link of each node.
	MaxPieces = 24
	// pieceMax is what a piece carries on a network.
	pieceMax = payloadMax
	// serialPiece is what one carries on the serial line: a longer one would keep
	// heartbeats waiting behind it.
	serialPiece = 256
)

// MaxBody is the longest message, and MaxSerialBody the longest that also goes over
// the serial line. One byte of each is the kind.
const (
	MaxBody       = MaxPieces*pieceMax - 1
	MaxSerialBody = MaxPieces*serialPiece - 1
)

// cut gives the payloads of a message's pieces.
func cut(kind byte, body []byte, size int) [][]byte {
	whole := append([]byte{kind}, body...)
	return slices.Collect(slices.Chunk(whole, size))
}

// assembly puts the pieces of one message at a time together. A newer message drops
// an older one.
type assembly struct {
	incarnation, message uint64
	pieces               [][]byte
	missing              int
}

// add takes a piece and gives the whole once it is.
func (a *assembly) add(p *Packet) ([]byte, bool) {
	if p.Pieces == 1 {
		return p.Payload, true
	}
	if a.incarnation != p.Incarnation || a.message < p.Message || len(a.pieces) != int(p.Pieces) {
		if a.incarnation == p.Incarnation && a.message > p.Message {
			return nil, false
		}
		*a = assembly{p.Incarnation, p.Message, make([][]byte, p.Pieces), int(p.Pieces)}
	}
	if a.message > p.Message || a.pieces[p.Piece] != nil {
		return nil, false
	}
	a.pieces[p.Piece] = slices.Clone(p.Payload)
	a.missing--
	if a.missing > 0 {
		return nil, false
	}
	whole := slices.Concat(a.pieces...)
	a.pieces = nil // a late copy begins anew, and the message's number is known
	return whole, true
}
