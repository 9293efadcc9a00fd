package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/human"
	"hastd/cmd/internal/metrics"
)

func (d *server) web() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics.NewCollector(d), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: daemon.WebTimeout,
	}))
	mux.HandleFunc("GET /healthz", d.healthz)
	mux.HandleFunc("GET /{$}", d.page)
	return mux
}

const (
	maxScrapes    = 4
	healthTimeout = 2 * time.Second
)

// healthz says whether the daemon works, not whether the replicas do: that is what
// metrics are for.
func (d *server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !d.Alive(healthTimeout) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "a resource does not answer")
		return
	}
	fmt.Fprintln(w, "ok")
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"bytes": human.Bytes, "seconds": human.Seconds,
}).Parse(pageText))

func (d *server) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("Cache-Control", "no-store")
	err := page.Execute(w, struct {
		Node, Cluster, Version string
		Time                   time.Time
		Resources              []api.Resource
	}{d.node.Name, d.clusterName(), build.Read().String(), time.Now(), d.Status(r.Context())})
	if err != nil {
		d.log.Debug("status page", "reason", err)
	}
}

func (d *server) clusterName() string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.conf.Cluster.Name
}
