// Package interop lets this project's elections meet real peers (ucarp, keepalived),
// real interfaces and forged packets in network namespaces. Its program
// cmd/elector stands for vipd: carp/runner and carp/vip without storage.
package interop
