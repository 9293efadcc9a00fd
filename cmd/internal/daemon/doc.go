// Package daemon is what hastd and vipd are alike in as processes: the command
// line, the log, the control socket, the servers, the signals and what systemd is
// told.
//
// It knows nothing of resources and groups: what a daemon does while it runs is a
// Process of its own.
package daemon
