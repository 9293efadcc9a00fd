package api

import (
	"context"
	"errors"
	"net/http"

	"hastd/cmd/internal/exit"
)

// ClusterBackend is what vipd's server tells of the cluster. Errors are *exit.Error or
// the context's.
type ClusterBackend interface {
	Cluster(ctx context.Context) (Cluster, error)
	// Own waits until a view gives a resource to this node.
	Own(ctx context.Context, resource string, force bool) error
}

type clusterServer struct{ b GroupBackend }

func clusterRoutes(mux *http.ServeMux, b GroupBackend) {
	s := &clusterServer{b}
	mux.HandleFunc("GET /v1/cluster", s.cluster)
	mux.HandleFunc("POST /v1/resources/{name}/own", s.own)
}

func (s *clusterServer) cluster(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	c, err := s.b.Cluster(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, c)
}

// own answers with the cluster as it then is.
func (s *clusterServer) own(w http.ResponseWriter, r *http.Request) {
	ctx, cancel, err := bound(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer cancel()
	var req OwnRequest
	if err = readBody(w, r, &req); err == nil {
		err = s.b.Own(ctx, r.PathValue("name"), req.Force)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = exit.New(exit.Again, "hastctl cluster status tells who owns it; then try again with a longer --timeout",
			"%s was not given to node %s in time", printable(r.PathValue("name")), s.b.Node())
	}
	if err != nil {
		fail(w, err)
		return
	}
	s.cluster(w, r)
}
