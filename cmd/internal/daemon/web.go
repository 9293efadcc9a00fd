package daemon

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	maxScrapes    = 4
	healthTimeout = 2 * time.Second
)

// Web serves metrics and health: whether the daemon works, not whether what it is
// for is well. That is what metrics are for.
func Web(log *slog.Logger, c prometheus.Collector, alive func(within time.Duration) bool) *http.ServeMux {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: WebTimeout,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !alive(healthTimeout) {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "a part of it does not answer")
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
