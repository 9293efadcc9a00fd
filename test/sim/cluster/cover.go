package cluster

import _ "embed"

//go:embed expected.txt
var expected string
