//go:build race

package main

// raceDetector keeps records of each byte of the heap, a ballast's too.
const raceDetector = true
