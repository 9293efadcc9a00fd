package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"hastd/cmd/internal/exit"
)

// NodeState is vipd's answer to GET /v1/node: whether this node takes part in the
// cluster.
type NodeState struct {
	Node string `json:"node"`
	// State: running; joining: no membership names it yet; waiting: its side has no
	// quorum; stopping, stopped, aborted: by order; failed: it had to give up.
	State  string    `json:"state"`
	Reason string    `json:"reason"` // one of a fixed list: docs/api.md
	Detail string    `json:"detail"` // a sentence
	Since  time.Time `json:"since"`  // of a state by order
	// Started is when vipd was.
	Started time.Time `json:"started"`
	// Last is the last stop or abort by order, kept over restarts; null: there was none.
	Last *NodeEnd `json:"last"`
}

// NodeEnd is a stop or an abort.
type NodeEnd struct {
	Reason string    `json:"reason"`
	Who    string    `json:"who"`
	Time   time.Time `json:"time"`
}

// What a node's state may be for, in the words that people know.
const (
	ReasonStop     = "user initiated stop"
	ReasonAbort    = "user initiated abort"
	ReasonQuorum   = "lost quorum"
	ReasonRecovery = "recovery in progress"
	ReasonLate     = "join timed out during reconfiguration"
	ReasonMaster   = "master aborted during join"
	ReasonRefused  = "connection refused by master"
	ReasonKey      = "cluster key mismatch with master"
	ReasonNoKey    = "cluster key not available"
	ReasonVersion  = "protocol version out of range"
	ReasonUpdate   = "metadata update failed"
	ReasonNoDaemon = "daemon not running"

	// Of a node that takes part, and cannot use a replica of its own.
	ReasonNoDisk = "cannot find disk"
	ReasonOpen   = "cluster device open failed"
	ReasonRole   = "transition to role failed"
)

// NodeRequest is the body of POST /v1/node/ORDER.
type NodeRequest struct {
	// Who orders it, for log and records.
	Who string `json:"who,omitempty"`
	// Of start: commit a membership of the nodes heard, without a quorum, where none is
	// known (Bootstrap) or where the others are down for certain (OthersAreDown).
	Bootstrap     bool `json:"bootstrap,omitempty"`
	OthersAreDown bool `json:"others_are_down,omitempty"`
}

// NodeOrders are what may be ordered of a node.
var NodeOrders = []string{"start", "stop", "abort", "restart", "reinit"}

// NodeBackend is what vipd's server lets a person do with its node. Errors are
// *exit.Error or the context's.
type NodeBackend interface {
	NodeState() NodeState
	OrderNode(ctx context.Context, order string, req NodeRequest) error
}

type nodeServer struct{ b GroupBackend }

func nodeRoutes(mux *http.ServeMux, b GroupBackend) {
	s := &nodeServer{b}
	mux.HandleFunc("GET /v1/node", s.state)
	mux.HandleFunc("POST /v1/node/{order}", s.order)
}

func (s *nodeServer) state(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.b.NodeState())
}

func (s *nodeServer) order(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	order := r.PathValue("order")
	var req NodeRequest
	switch err = readBody(w, r, &req); {
	case err != nil:
	case !slices.Contains(NodeOrders, order):
		err = exit.New(exit.Usage, "docs/api.md lists the requests", "no such order: %s", printable(order))
	case order != "start" && (req.Bootstrap || req.OthersAreDown), req.Bootstrap && req.OthersAreDown:
		err = exit.New(exit.Usage, "docs/api.md shows the bodies", "start takes bootstrap or others_are_down, and no other order does")
	default:
		err = s.b.OrderNode(ctx, order, req)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = exit.New(exit.Again, "it goes on: hastctl node state and hastctl group status tell how far it is", "%s of node %s was not done in time", order, s.b.Node())
	}
	if err != nil {
		fail(w, err)
		return
	}
	s.state(w, r)
}

// NodeState asks whether the node takes part.
func (c GroupClient) NodeState(ctx context.Context) (NodeState, error) {
	var n NodeState
	return n, c.call(ctx, "GET", "/v1/node", nil, &n)
}

// OrderNode posts one of NodeOrders and returns the state afterwards.
func (c GroupClient) OrderNode(ctx context.Context, order string, req NodeRequest) (NodeState, error) {
	var n NodeState
	return n, c.call(ctx, "POST", "/v1/node/"+order, req, &n)
}
