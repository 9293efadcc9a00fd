// Package runner is the heartbeats' way in and out: a UDP socket for each link, the
// serial line, the carriers of interfaces and the clocks. It feeds the machine of
// package beat and sends what that wants sent.
//
// It decides nothing, and knows nothing of views, groups or storage: what is heard it
// tells its caller. What strangers send costs a bounded part of a processor.
package runner
