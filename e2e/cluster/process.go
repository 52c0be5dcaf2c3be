// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// tailBytes and tailLines bound how much of a log an error carries: enough
	// for the message and its surroundings, little enough for a terminal.
	tailBytes = 4 << 10
	tailLines = 15
)

// A process is a running component.
type process struct {
	name    string
	pid     int
	logFile string
	grace   time.Duration

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was waited for
	err  error         // how it ended; to be read after done
}

// startProcess starts a component, its output in <name>.log in dir.
func startProcess(binary, dir string, c component) (*process, error) {
	p := &process{
		name:    c.name,
		logFile: filepath.Join(dir, c.name+".log"),
		grace:   c.grace,
		done:    make(chan struct{}),
	}
	log, err := os.Create(p.logFile)
	if err != nil {
		return nil, fmt.Errorf("creating the log of %s: %w", c.name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(binary, c.args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(environment(dir), c.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = processAttributes()

	started := make(chan error)
	go func() {
		// Linux sends the signal of processAttributes when the thread that made
		// the process ends, not when this whole process does. Holding the thread
		// until the child is gone makes the two the same.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = p.cmd.Process.Pid
		started <- nil
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	return p, nil
}

// environment is all that a component or kubectl sees of ours: both read
// variables (ETCD_*, KUBECONFIG, proxies) and files of the home folder that
// would make a test depend on who runs it.
func environment(dir string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + dir,
		"TMPDIR=" + os.TempDir(),
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the process and waits until it is gone.
func (p *process) stop() error {
	if p.ended() {
		return p.failure()
	}
	// An error means that it has just ended, which done will tell.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(p.grace)
	defer limit.Stop()
	select {
	case <-p.done:
		return nil
	case <-limit.C:
	}
	p.kill()
	return fmt.Errorf("stopping %s: killed, for it had not ended %s after SIGTERM", p.name, p.grace)
}

// kill ends the process at once, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// failure describes a process that ended by itself.
func (p *process) failure() error {
	return fmt.Errorf("%s ended by itself: %s; %s", p.name, p.cmd.ProcessState, p.logTail())
}

// logTail returns the end of the log, introduced by its path.
func (p *process) logTail() string {
	text, err := tail(p.logFile)
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	return fmt.Sprintf("the end of %s:\n%s", p.logFile, text)
}

// tail returns the last lines of a file.
func tail(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return "", err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return strings.Join(lines, "\n"), nil
}
