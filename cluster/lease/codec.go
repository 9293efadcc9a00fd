package lease

import (
	"encoding/binary"
	"fmt"

	"hastd/cluster/view"
)

// A renewal and its answer on the wire, all numbers big endian:
//
//	0  format, kind (1 renew, 2 confirm), the sender's incarnation
//	10 number of the view, round
//
// Who sent it, to whom, and that it is new, the heartbeats' packets say.
const (
	format      = 1
	kindRenew   = 1
	kindConfirm = 2

	// MessageSize is how long each is, in bytes.
	MessageSize = 26
)

// AppendRenew writes a renewal.
func AppendRenew(b []byte, r Renew) []byte {
	return appendMessage(b, kindRenew, r.Inc, r.Number, r.Round)
}

// AppendConfirm writes the answer to one.
func AppendConfirm(b []byte, c Confirm) []byte {
	return appendMessage(b, kindConfirm, c.Inc, c.Number, c.Round)
}

func appendMessage(b []byte, kind byte, inc view.Incarnation, number, round uint64) []byte {
	be := binary.BigEndian
	b = append(b, format, kind)
	b = be.AppendUint64(b, uint64(inc))
	b = be.AppendUint64(b, number)
	return be.AppendUint64(b, round)
}

// Read reads what a node sent: a Renew or a Confirm.
func Read(from view.NodeID, b []byte) (Event, error) {
	if len(b) != MessageSize {
		return nil, fmt.Errorf("lease: %d bytes, and %d are right", len(b), MessageSize)
	}
	if b[0] != format {
		return nil, fmt.Errorf("lease: format %d, and this program knows %d; update the older node", b[0], format)
	}
	be := binary.BigEndian
	inc, number, round := view.Incarnation(be.Uint64(b[2:])), be.Uint64(b[10:]), be.Uint64(b[18:])
	if inc == 0 || number == 0 || round == 0 {
		return nil, fmt.Errorf("lease: no incarnation, no view or no round")
	}
	switch b[1] {
	case kindRenew:
		return Renew{From: from, Inc: inc, Number: number, Round: round}, nil
	case kindConfirm:
		return Confirm{From: from, Inc: inc, Number: number, Round: round}, nil
	}
	return nil, fmt.Errorf("lease: a message of no kind (%d)", b[1])
}
