// Package test holds what is true of the whole tree and of no single package: who
// may import whom, what a pure package may contain, what no file may say. The
// simulator, the lab and the benchmarks stand in folders below.
//
// Nothing imports it.
package test
