// Package build tells which build of HAST a program is. Both programs print it,
// the API and the metrics carry it.
package build

import (
	"runtime"
	"runtime/debug"
)

// Version is set by the linker for releases: -X hastd/cmd/internal/build.Version=1.2
var Version = ""

// Info describes the running build.
type Info struct {
	Version  string `json:"version"`  // of the release, "devel" for others
	Revision string `json:"revision"` // of the source, "unknown" if it was not recorded
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Read asks the runtime.
func Read() Info {
	i := Info{Version: Version, Revision: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if i.Version == "" {
		i.Version = "devel"
	}
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return i
	}
	dirty := false
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && i.Revision != "unknown" {
		i.Revision += "+changes"
	}
	return i
}

func (i Info) String() string {
	return i.Version + " (" + i.Revision + ", " + i.Go + ", " + i.Platform + ")"
}
