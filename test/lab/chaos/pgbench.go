package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// pgbench runs PostgreSQL's own load beside the clients. Its tables have an
// invariant of their own, and it tells at its end how many transactions it saw
// committed: so many rows its history has at least.
type pgbench struct {
	bin string
	as  *credential

	mu    sync.Mutex
	cmd   *exec.Cmd
	out   *bytes.Buffer
	ended chan struct{}

	committed int64 // by all runs that have ended and told
	silent    int64 // runs that were killed before they told
	emptied   int64 // rows of the history that were there when it was emptied
	delta     int64 // their sum
}

// benchRate bounds pgbench, in transactions a second.
const benchRate = 60

// benchEnd is how long it may take to notice that its server is gone.
const benchEnd = 3 * time.Second

func (b *pgbench) start(socket string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		return nil
	}
	cmd := exec.Command(filepath.Join(b.bin, "pgbench"), "-n", "-c", "2", "-j", "1", "-T", "1000000", "-R", strconv.Itoa(benchRate), "-h", socket, "-U", dbUser, dbUser)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.as, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	b.out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = b.out, b.out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	b.cmd, b.ended = cmd, ended
	go func() {
		cmd.Wait() // its server is killed under it: the status says nothing
		close(ended)
	}()
	return nil
}

var benchCount = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

// stop is for when its server is gone: it ends by itself then, and tells.
func (b *pgbench) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd == nil {
		return
	}
	select {
	case <-b.ended:
	case <-time.After(benchEnd):
		b.cmd.Process.Kill()
		<-b.ended
	}
	if m := benchCount.FindSubmatch(b.out.Bytes()); m != nil {
		n, _ := strconv.ParseInt(string(m[1]), 10, 64) // digits
		b.committed += n
	} else {
		b.silent++
	}
	b.cmd = nil
}

const benchSums = `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
	(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), (SELECT count(*) FROM pgbench_history);
`

// check wants all sums equal and nothing missing. One statement sees one moment,
// so pgbench may go on meanwhile.
func (b *pgbench) check(ctx context.Context, c *clients, socket string) (rows int64, err error) {
	out, err := c.query(ctx, socket, benchSums)
	if err != nil {
		return 0, err
	}
	var accounts, tellers, branches, history int64
	if _, err := fmt.Sscanf(out, "%d|%d|%d|%d|%d", &accounts, &tellers, &branches, &history, &rows); err != nil {
		return 0, fmt.Errorf("chaos: the sums of pgbench's tables are %q", out)
	}
	history += b.delta
	if accounts != tellers || tellers != branches || branches != history {
		return 0, fmt.Errorf("chaos: pgbench's balances differ: accounts %d, tellers %d, branches %d, history %d", accounts, tellers, branches, history)
	}
	if rows+b.emptied < b.committed {
		return 0, fmt.Errorf("chaos: LOST: pgbench saw %d transactions committed, its history has %d", b.committed, rows+b.emptied)
	}
	return rows, nil
}

// empty empties the history.
func (b *pgbench) empty(ctx context.Context, c *clients, socket string) error {
	out, err := c.query(ctx, socket, `BEGIN;
LOCK pgbench_history;
SELECT count(*), coalesce(sum(delta), 0) FROM pgbench_history;
TRUNCATE pgbench_history;
COMMIT;
`)
	if err != nil {
		return err
	}
	var n, delta int64
	if _, err := fmt.Sscanf(out, "%d|%d", &n, &delta); err != nil {
		return fmt.Errorf("chaos: emptying pgbench's history printed %q", out)
	}
	b.emptied += n
	b.delta += delta
	return nil
}
