package main

import (
	_ "embed"
	"html/template"
	"net/http"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/human"
	"hastd/cmd/internal/metrics"
)

func (d *server) web() http.Handler {
	mux := daemon.Web(d.log, metrics.NewCollector(d), d.Alive)
	mux.HandleFunc("GET /{$}", d.page)
	return mux
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
