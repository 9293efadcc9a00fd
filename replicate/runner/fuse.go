package runner

import (
	"errors"

	"hastd/blockdev"
)

func serveFUSE(r *Resource) (blockdev.Provider, error) {
	return nil, errors.New("provider \"fuse\" is not in this build: set provider = \"nbd-server\"")
}
