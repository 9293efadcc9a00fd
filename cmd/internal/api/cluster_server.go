package api

import (
	"context"
	"net/http"
)

// ClusterBackend is what vipd's server tells of the cluster. Errors are *exit.Error or
// the context's.
type ClusterBackend interface {
	Cluster(ctx context.Context) (Cluster, error)
}

type clusterServer struct{ b GroupBackend }

func clusterRoutes(mux *http.ServeMux, b GroupBackend) {
	s := &clusterServer{b}
	mux.HandleFunc("GET /v1/cluster", s.cluster)
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
