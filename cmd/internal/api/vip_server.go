package api

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"hastd/cmd/internal/exit"
)

// GroupBackend is what vipd's server controls.
type GroupBackend interface {
	Daemon
	Groups() []Group
	VIPs() []VIP
	ClusterSummary() Summary
	ClusterBackend
	NodeBackend
	// Order waits until an order (of GroupOrders) is carried out, refused, or ctx
	// ends. Part is only for clear. Errors are *exit.Error or the context's.
	Order(ctx context.Context, group, order, part string) error
}

type groupServer struct{ b GroupBackend }

// NewGroupHandler serves vipd's API over b.
func NewGroupHandler(b GroupBackend) http.Handler {
	s := &groupServer{b}
	return handle("vipd", b, func(mux *http.ServeMux) {
		mux.HandleFunc("GET /v1/groups", s.groups)
		mux.HandleFunc("GET /v1/groups/{name}", s.group)
		mux.HandleFunc("POST /v1/groups/{name}/{order}", s.order)
		mux.HandleFunc("GET /v1/vip", s.vips)
		mux.HandleFunc("GET /v1/summary", s.summary)
		clusterRoutes(mux, b)
		nodeRoutes(mux, b)
	})
}

func (s *groupServer) groups(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Groups{s.b.Node(), s.b.Groups()})
}

func (s *groupServer) vips(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, VIPs{s.b.Node(), s.b.VIPs()})
}

func (s *groupServer) summary(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.b.ClusterSummary())
}

func (s *groupServer) group(w http.ResponseWriter, r *http.Request) {
	s.answerGroup(w, r.PathValue("name"))
}

func (s *groupServer) answerGroup(w http.ResponseWriter, name string) {
	all := s.b.Groups()
	if i := slices.IndexFunc(all, func(g Group) bool { return g.Name == name }); i >= 0 {
		answer(w, http.StatusOK, all[i])
		return
	}
	notFound(w, exit.New(exit.Usage, "hastctl group status shows the groups of this node", "group %q does not run on node %s", printable(name), s.b.Node()))
}

func (s *groupServer) order(w http.ResponseWriter, r *http.Request) {
	name, order := r.PathValue("name"), r.PathValue("order")
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	if !slices.ContainsFunc(s.b.Groups(), func(g Group) bool { return g.Name == name }) {
		s.answerGroup(w, name)
		return
	}
	var req ClearRequest
	switch {
	case order == "clear":
		err = readBody(w, r, &req)
	case slices.Contains(GroupOrders, order):
		err = readBody(w, r, &struct{}{})
	default:
		err = exit.New(exit.Usage, "docs/api.md lists the requests", "no such order: %s", printable(order))
	}
	if err == nil {
		err = s.b.Order(ctx, name, order, req.Part)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = exit.New(exit.Again, "it goes on: look at hastctl group status, then try again with a longer --timeout",
			"%s of group %s on node %s was not done in time", order, name, s.b.Node())
	}
	if err != nil {
		fail(w, err)
		return
	}
	s.answerGroup(w, name)
}
