package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/human"
	"hastd/cmd/internal/metrics"
)

// serveControl answers hastctl.
func (d *daemon) serveControl() {
	d.serve(d.control, newServer(api.NewHandler(d, d.log), d.log))
}

// serveHTTP gives metrics, health and the status page. A port that is taken does
// not keep the storage from running.
func (d *daemon) serveHTTP() {
	if d.hastd.HTTP == "" {
		return
	}
	l, err := net.Listen("tcp", d.hastd.HTTP)
	if err != nil {
		d.log.Error("no metrics and no status page: the address of http cannot be used", "reason", err)
		return
	}
	s := newServer(d.web(), d.log)
	s.WriteTimeout = webTimeout
	d.serve(l, s)
}

// webTimeout bounds a scrape or a page from its request to its last byte.
const webTimeout = 30 * time.Second

func (d *daemon) serve(l net.Listener, s *http.Server) {
	s.BaseContext = func(net.Listener) context.Context { return d.ctx } // ends event streams
	d.servers = append(d.servers, s)
	lim := limit(l, maxConnections)
	d.wg.Go(func() {
		if err := s.Serve(lim); err != nil && !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("a server ended", "address", l.Addr().String(), "reason", err)
		}
	})
}

// stopServers lets answers under way go out, for a moment.
func (d *daemon) stopServers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, serverStopTimeout)
	defer cancel()
	for _, s := range d.servers {
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	}
}

func (d *daemon) web() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics.NewCollector(d), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: webTimeout,
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
func (d *daemon) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !d.alive(healthTimeout) {
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

func (d *daemon) page(w http.ResponseWriter, r *http.Request) {
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

func (d *daemon) clusterName() string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.conf.Cluster.Name
}
