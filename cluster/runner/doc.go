// Package runner carries out what the machine of a group (package cluster) wants:
// it switches storage roles through hastd, mounts, starts and stops services, puts
// addresses up, and tells the machine how each ended.
//
// It decides nothing: not who is master, not what comes next, not whether a failure
// matters. Every action has a context that the machine can end.
package runner
