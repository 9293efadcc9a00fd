package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/metrics"
)

const (
	maxScrapes    = 4
	healthTimeout = 2 * time.Second
)

func (s *server) web() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics.NewGroupCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.o.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: daemon.WebTimeout,
	}))
	mux.HandleFunc("GET /healthz", s.healthz)
	return mux
}

// healthz says whether the daemon works, not whether the groups are well.
func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !s.Alive(healthTimeout) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "a group does not answer")
		return
	}
	fmt.Fprintln(w, "ok")
}

// GroupSamples is the source of the metrics.
func (s *server) GroupSamples() []metrics.GroupSample {
	var list []metrics.GroupSample
	for _, u := range s.groups {
		x := metrics.GroupSample{Node: s.Node(), Group: u.status(), VIP: u.vip(), Transitions: map[string]uint64{}}
		u.mu.Lock()
		for to, n := range u.transitions {
			x.Transitions[to] = n
		}
		u.mu.Unlock()
		list = append(list, x)
	}
	return list
}
