package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// job is one kind of load.
type job struct {
	name  string
	rw    string
	block string
	depth int
	fsync int     // a flush after so many writes
	least float64 // times qemu's mirror that is promised; 0: nothing is
}

var jobs = []job{
	{name: "randwrite-4k-d1", rw: "randwrite", block: "4k", depth: 1},
	{name: "randwrite-4k-d32", rw: "randwrite", block: "4k", depth: 32, least: 1.5},
	{name: "flush32-4k-d32", rw: "randwrite", block: "4k", depth: 32, fsync: 32},
	{name: "write-1m-d4", rw: "write", block: "1m", depth: 4, least: 1.5},
	{name: "randread-4k-d1", rw: "randread", block: "4k", depth: 1},
	{name: "randread-4k-d32", rw: "randread", block: "4k", depth: 32},
}

// fioSlack is what fio may take beyond the time it is to measure.
const fioSlack = 30 * time.Second

// sample is one measurement of one job on one stack.
type sample struct {
	IOPS float64 `json:"iops"`
	MBps float64 `json:"mb_per_second"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	CPU  float64 `json:"cpu_us_per_op"` // of the servers
}

// result is the part of fio's output that is of interest.
type result struct {
	Jobs []struct {
		Error       int
		Read, Write struct {
			Iops  float64
			Bytes float64 `json:"bw_bytes"`
			Total float64 `json:"total_ios"`
			Clat  struct {
				Percentile map[string]float64
			} `json:"clat_ns"`
		}
	}
}

// measure runs one job for its time.
func measure(ctx context.Context, j job, s *stack, o options, round int) (sample, error) {
	before, err := s.processorTime()
	if err != nil {
		return sample{}, err
	}
	args := []string{
		"--time_based", fmt.Sprintf("--runtime=%d", int(o.runtime.Seconds())),
		fmt.Sprintf("--randseed=%d", round+1), "--norandommap",
	}
	res, err := fio(ctx, j, s, o.size, o.runtime+fioSlack, args...)
	if err != nil {
		return sample{}, err
	}
	after, err := s.processorTime()
	if err != nil {
		return sample{}, err
	}
	r := res.Jobs[0].Write
	if strings.Contains(j.rw, "read") {
		r = res.Jobs[0].Read
	}
	if r.Total == 0 {
		return sample{}, fmt.Errorf("%s on %s: not one operation in %v", j.name, s.name, o.runtime)
	}
	return sample{
		IOPS: r.Iops, MBps: r.Bytes / 1e6,
		P50: r.Clat.Percentile["50.000000"] / 1e3, P99: r.Clat.Percentile["99.000000"] / 1e3,
		CPU: float64((after - before).Microseconds()) / r.Total,
	}, nil
}

// fill writes the whole device once.
func fill(ctx context.Context, s *stack, size int64) error {
	_, err := fio(ctx, job{name: "fill", rw: "write", block: "1m", depth: 4}, s, size, 2*time.Minute)
	return err
}

func fio(ctx context.Context, j job, s *stack, size int64, limit time.Duration, more ...string) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := []string{
		"--name=" + j.name, "--ioengine=nbd", "--uri=" + s.uri, "--output-format=json",
		"--rw=" + j.rw, "--bs=" + j.block, fmt.Sprintf("--iodepth=%d", j.depth), fmt.Sprintf("--size=%d", size),
	}
	if j.fsync > 0 {
		args = append(args, fmt.Sprintf("--fsync=%d", j.fsync))
	}
	cmd := exec.CommandContext(ctx, "fio", append(args, more...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var res result
	if err == nil {
		_, text, _ := strings.Cut(string(out), "{") // a line on the connection comes first
		err = json.Unmarshal([]byte("{"+text), &res)
	}
	if err == nil && (len(res.Jobs) != 1 || res.Jobs[0].Error != 0) {
		err = fmt.Errorf("it reports an error")
	}
	if err != nil {
		return res, fmt.Errorf("fio %s on %s: %w\n%s", j.name, s.name, err, strings.TrimSpace(stderr.String()))
	}
	return res, nil
}
