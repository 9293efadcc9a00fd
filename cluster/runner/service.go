package runner

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hastd/cluster"
)

// Service is a program of a group.
type Service struct {
	StartArgs    []string
	StopArgs     []string
	MonitorArgs  []string
	MonitorLimit time.Duration
}

// Exit statuses of a monitor.
const (
	monitorOnline  = 110
	monitorOffline = 100
)

// Probe runs the monitor. Without one nobody knows: it is stopped first.
func (d *Service) Probe(ctx context.Context) (bool, error) {
	if len(d.MonitorArgs) == 0 {
		return false, errors.New("it has no monitor, so it is stopped before it is started")
	}
	look, err := d.Look(ctx)
	if look == cluster.LookUnknown {
		return false, err
	}
	return look == cluster.LookOnline, nil
}

// Up starts it; if there is a monitor, it must say online before the limit. The program
// is told in RESTART_COUNT which try it is: 0 is the first.
func (d *Service) Up(ctx context.Context, try int) error {
	if len(d.StartArgs) > 0 {
		if _, err := run(ctx, d.StartArgs, []string{"RESTART_COUNT=" + strconv.Itoa(try)}); err != nil {
			return err
		}
	}
	if len(d.MonitorArgs) == 0 {
		return nil
	}
	for {
		look, err := d.Look(ctx)
		if look == cluster.LookOnline {
			return nil
		}
		if err == nil {
			err = errors.New("its monitor still says offline")
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(monitorPause):
		}
	}
}

// monitorPause is the time between two looks at a service that is starting.
const monitorPause = 200 * time.Millisecond

// Down stops it.
func (d *Service) Down(ctx context.Context) error {
	if len(d.StopArgs) == 0 {
		return nil // only watched
	}
	_, err := run(ctx, d.StopArgs, nil)
	return err
}

// Look runs the monitor.
func (d *Service) Look(ctx context.Context) (cluster.Look, error) {
	ctx, cancel := context.WithTimeout(ctx, d.MonitorLimit)
	defer cancel()
	status, err := run(ctx, d.MonitorArgs, nil)
	switch status {
	case monitorOnline:
		return cluster.LookOnline, nil
	case monitorOffline:
		return cluster.LookOffline, nil
	}
	if err == nil {
		err = fmt.Errorf("%s: exit status 0, which means neither online (%d) nor offline (%d)", strings.Join(d.MonitorArgs, " "), monitorOnline, monitorOffline)
	}
	return cluster.LookUnknown, err
}
