package transport

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Why a session ended; Serve's error wraps one of them, or is a *PeerClosed.
var (
	// ErrPeerSilent: nothing was heard on the control connection for Timeout.
	ErrPeerSilent = errors.New("the peer is silent")
	// ErrPeerStalled: the data connection took no byte for Timeout.
	ErrPeerStalled = errors.New("the peer takes no data")
	// ErrLost: a connection broke or was closed without a word.
	ErrLost = errors.New("connection lost")
	// ErrProtocol: the peer sent something that is no frame, or a broken body.
	ErrProtocol = errors.New("protocol error")
	// ErrBodyRefused: Handler.Body returned nil.
	ErrBodyRefused = errors.New("body refused")
	// ErrClosed: Close was called on this side.
	ErrClosed = errors.New("session closed")
)

// PeerClosed is the end of a session that the peer asked for.
type PeerClosed struct {
	Reason string // the peer's words, made printable
}

func (e *PeerClosed) Error() string { return "closed by the peer: " + e.Reason }

// Code classifies a refusal; it travels beside the reason.
type Code string

// Codes of refusals.
const (
	CodeCluster  Code = "wrong-cluster"
	CodeNode     Code = "wrong-node"
	CodeResource Code = "unknown-resource"
	CodeVersion  Code = "version"
	CodeKey      Code = "key"
	CodeSession  Code = "session"
	CodeNotReady Code = "not-ready"
	CodeBad      Code = "bad-handshake"
)

// Refused says that one side did not want the session. A refusal by the peer is
// only as trustworthy as the network until the peer has proved the key: show it,
// do not act on it.
type Refused struct {
	Code   Code
	Reason string
	Remote bool // the peer refused; otherwise this side did
}

func (e *Refused) Error() string {
	if e.Remote {
		return "refused by the peer: " + e.Reason
	}
	return "refused: " + e.Reason
}

func refuse(code Code, format string, args ...any) *Refused {
	return &Refused{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// printable makes foreign words safe for a log line and a terminal.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	return clip(s, limit)
}

// clip shortens s to at most limit bytes without cutting a character.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for len(s) > 0 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}
