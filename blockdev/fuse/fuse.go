// Package fuse is the provider that works where no module can be loaded: one file
// over FUSE, and a loop device on top of it that applications open as a disk.
//
// The runner of a resource calls Serve when it becomes primary and Close when it
// stops being; the daemon calls Cleanup once at its start. The package never
// answers an application's request by itself: what the device below says is what
// applications get, and no failed flush or write is ever reported as done. It never waits for a
// process that holds the device: every step of closing is bounded in time.
//
// In the run directory each provider has a folder:
//
//	DIR/NAME/mnt    where the file is mounted, as mnt/disk
//	DIR/NAME/link   the path of the symlink applications open, for Cleanup;
//	                locked by the process that serves it
package fuse

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

const (
	// Kind is the provider's name in configuration and status.
	Kind = "fuse"

	// fsType is how the mounts are recognised again.
	fsType = "fuse.hast"
	// maxTransfer is the largest read or write the kernel sends.
	maxTransfer = 1 << 20
	// maxInFlight is how many reads and writes the kernel sends at once.
	maxInFlight = 64
	// stepLimit bounds each step of closing that enters the kernel.
	stepLimit = 5 * time.Second
	// lingerLimit is how long closing waits for requests that are with the
	// device. The device may be waiting for the closing to end, so not for long.
	lingerLimit = 200 * time.Millisecond
	// usersSettle is how long a short-lived opener (udev looking at a new disk)
	// is waited for before the device counts as in use.
	usersSettle = 500 * time.Millisecond
)

// Options says what to serve, and where.
type Options struct {
	Device blockdev.Device
	Dir    string // run directory of this package's providers, e.g. /run/hast/fuse
	Path   string // of the symlink; "": /dev/hast/NAME
	Log    *slog.Logger
}

// Provider is a device being served. It implements blockdev.Provider.
type Provider struct {
	path string
	dir  string // DIR/NAME
	loop string // /dev/loopN
	conn uint32 // number of the FUSE connection
	log  *slog.Logger
	fs   *disk
	lock *os.File // DIR/NAME/link, locked while this process lives

	served chan struct{} // closed when the FUSE server's goroutines have ended

	mu     sync.Mutex // one Close at a time
	closed bool
}

var _ blockdev.Provider = (*Provider)(nil)

// Serve makes the device appear at its path. Errors wrap what the kernel said;
// what had been set up is taken back.
func Serve(opts Options) (p *Provider, err error) {
	info := opts.Device.Info()
	if info.Name == "" || info.Name == "." || info.Name == ".." || strings.ContainsRune(info.Name, '/') {
		return nil, fmt.Errorf("serve over FUSE: %q cannot be the name of a device", info.Name)
	}
	if opts.Path == "" {
		opts.Path = filepath.Join("/dev/hast", info.Name)
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	p = &Provider{
		path:   opts.Path,
		dir:    filepath.Join(opts.Dir, info.Name),
		log:    opts.Log,
		fs:     newDisk(opts.Device),
		served: make(chan struct{}),
	}
	if err := p.checkPath(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("serve %s over FUSE: %w", info.Name, err)
			p = nil
		}
	}()
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	// As the kernel's lists name it.
	if p.dir, err = filepath.EvalSymlinks(p.dir); err == nil {
		p.dir, err = filepath.Abs(p.dir)
	}
	if err != nil {
		return nil, err
	}
	if p.lock, err = claim(p.dir); err != nil {
		return nil, err
	}
	mnt := filepath.Join(p.dir, "mnt")
	// What a killed daemon left of this very provider would be in the way.
	if _, err = cleanUp(p.dir); err == nil {
		if err = os.MkdirAll(mnt, 0o700); err == nil {
			err = p.writeNote()
		}
	}
	if err != nil {
		p.lock.Close()
		return nil, err
	}
	fd, err := mountFUSE(mnt, info.Name)
	if err != nil {
		close(p.served)
		_ = p.tearDown()
		return nil, err
	}
	server, err := newServer(fd, p.fs, &gofuse.MountOptions{
		MaxWrite:      maxTransfer,
		MaxBackground: maxInFlight,
		// Without it the kernel has one direct request in flight and no more.
		ExtraCapabilities: gofuse.CAP_ASYNC_DIO,
		DisableXAttrs:     true,
		Logger:            log.New(logWriter{opts.Log}, "", 0),
	}, opts.Log)
	if err != nil {
		unix.Close(fd)
		close(p.served)
		_ = p.tearDown()
		return nil, err
	}
	go func() {
		defer close(p.served)
		server.serve()
	}()
	if err := p.attach(mnt, info); err != nil {
		_ = p.tearDown() // what went wrong first is what to tell
		return nil, err
	}
	return p, nil
}

// writeNote keeps the symlink's path where Cleanup finds it.
func (p *Provider) writeNote() error {
	if err := p.lock.Truncate(0); err != nil {
		return err
	}
	_, err := p.lock.WriteAt([]byte(p.path), 0)
	return err
}

// attach puts the loop device over the mounted file, and the symlink to it.
func (p *Provider) attach(mnt string, info blockdev.DeviceInfo) error {
	conn, err := connectionOf(mnt)
	if err != nil {
		return err
	}
	p.conn = conn
	runtime.LockOSThread() // the kernel says which thread asks
	defer runtime.UnlockOSThread()
	p.fs.attacher.Store(uint32(unix.Gettid()))
	defer p.fs.attacher.Store(0)
	if p.loop, err = attachLoop(filepath.Join(mnt, fileName), info.SectorSize); err != nil {
		return err
	}
	return replaceLink(p.loop, p.path)
}

// Kind names the sort of provider.
func (p *Provider) Kind() string { return Kind }

// Path is what an administrator opens: a symlink to the loop device.
func (p *Provider) Path() string { return p.path }

// LoopDevice is where the symlink points.
func (p *Provider) LoopDevice() string { return p.loop }

// Users says who holds the loop device open.
func (p *Provider) Users() ([]string, error) { return blockdev.Holders(p.loop) }

// Close takes the device away. Without force it refuses with an
// *blockdev.InUseError while somebody holds it; with force their requests end in
// EIO. In either case nothing of this provider reaches the device after it has
// returned nil, and after force even when it has not.
func (p *Provider) Close(force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	if !force {
		if err := p.settle(); err != nil {
			return err
		}
	}
	p.closed = true
	err := p.tearDown()
	if err != nil && !force {
		// An error would say that it goes on serving.
		p.log.Warn("closing the provider left something behind", "path", p.path, "error", err)
		return nil
	}
	return err
}

// settle makes sure that nobody uses the device and that all written to it has
// reached us.
func (p *Provider) settle() error {
	for limit := time.Now().Add(usersSettle); ; time.Sleep(usersSettle / 10) {
		users, err := p.Users()
		if err != nil {
			return err
		}
		if len(users) == 0 {
			break
		}
		if time.Now().After(limit) {
			return &blockdev.InUseError{Path: p.path, Users: users}
		}
	}
	// A process that was killed is no user any more while its close still waits for
	// what it wrote. Not one of our threads may wait in the kernel for that: while it
	// is held, this process could not be killed.
	for limit := time.Now().Add(stepLimit); p.unanswered(); time.Sleep(usersSettle / 10) {
		if time.Now().After(limit) {
			return fmt.Errorf("close %s: nobody has it open, but what was asked of it is not answered: requests are held (hastctl status tells why), or the disks hang", p.path)
		}
	}
	// The last user's close wrote the page cache back; a device nobody holds
	// has nothing left. The claim proves it, and writes should that be wrong.
	err := bounded("sync "+p.loop, func() error { return writeBack(p.loop) })
	if errors.Is(err, unix.EBUSY) {
		users, _ := p.Users()
		return &blockdev.InUseError{Path: p.path, Users: users}
	}
	if err != nil {
		return fmt.Errorf("close %s: what applications wrote did not reach it: %w", p.path, err)
	}
	return nil
}

// unanswered says whether the device has requests of ours.
func (p *Provider) unanswered() bool {
	select {
	case <-p.served:
		return false
	default:
		return len(p.fs.server.idle) < maxCalls
	}
}

// writeBack claims the loop device and waits until what is in its page cache has been
// written to our file. It asks for no flush: who steps down flushes both replicas
// itself, and a flush that is held would hold our thread in the kernel.
func writeBack(loop string) error {
	fd, err := unix.Open(loop, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE_AND_WAIT)
}

// tearDown removes everything, whoever holds it. It goes on after an error, and
// returns all of them.
func (p *Provider) tearDown() error {
	p.fs.shut() // from here on no request reaches the device
	var errs []error
	if err := removeLink(p.path, p.loop); err != nil {
		errs = append(errs, err)
	}
	mnt := filepath.Join(p.dir, "mnt")
	if p.conn != 0 {
		// Ends requests under way and those of a process that hangs in one;
		// without it detaching the loop device could wait for them.
		errs = append(errs, abort(p.conn, mnt))
	}
	if p.loop != "" {
		errs = append(errs, bounded("detach "+p.loop, func() error { return detachLoop(p.loop) }))
	}
	errs = append(errs, unmount(mnt))
	select {
	case <-p.served:
	case <-time.After(lingerLimit):
		// Requests that the device has not answered yet hold them; they end
		// with the device.
		p.log.Warn("FUSE requests are still with the device after the provider was closed", "path", p.path)
	}
	errs = append(errs, removeDir(p.dir), p.lock.Close())
	return errors.Join(errs...)
}

// bounded runs a step that enters the kernel and may wait there. When it takes
// too long it is left alone: the goroutine ends when the kernel lets it.
func bounded(what string, step func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- step() }()
	t := time.NewTimer(stepLimit)
	defer t.Stop()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-t.C:
		return fmt.Errorf("%s: no answer from the kernel within %v: %w", what, stepLimit, unix.ETIMEDOUT)
	}
}

// logWriter passes on what the FUSE library has to say.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Debug("FUSE", "message", strings.TrimSpace(string(b)))
	return len(b), nil
}
