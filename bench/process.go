// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startWithin bounds the wait for a server; many times what a start may
	// take, because a slow one is a figure and not an accident.
	startWithin = 60 * time.Second
	// stopWithin is how long a process has between SIGTERM and SIGKILL; spec
	// section 8 gives 10 s for requests in flight.
	stopWithin = 15 * time.Second
	// probeEvery is how exactly the time from start to ready is known.
	probeEvery = 2 * time.Millisecond
)

// process is a server under measurement. It has a process of its own, so that
// its time and memory can be told from the client's.
type process struct {
	name    string
	address string // host:port of the webhook
	metrics string // host:port of /metrics; the floor has none
	cmd     *exec.Cmd
	log     string // file with what it wrote to standard error
	ready   time.Duration
	exited  chan struct{} // closed when it has ended
}

// launch starts cmd with its log in dir.
func launch(name, dir string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the process has it open itself
	cmd.Stderr = log
	cmd.SysProcAttr = processAttributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // ProcessState tells the same
		close(p.exited)
	}()
	return p, nil
}

// stop ends the process by its id and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.exited:
		return
	case <-time.After(stopWithin):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// failure adds the end of the log to an error.
func (p *process) failure(err error) error {
	const lines = 5
	data, readErr := os.ReadFile(p.log)
	if readErr != nil {
		return err
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return fmt.Errorf("%w\nthe last lines of %s:\n%s", err, p.name, strings.Join(all[max(0, len(all)-lines):], "\n"))
}

// buildFloor compiles the floor.
func buildFloor(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "floor")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/pratique-dev/pratique/bench/floor")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the floor: %w\n%s", err, output)
	}
	return binary, nil
}

// startFloor starts the floor, which prints its address when it listens.
func startFloor(ctx context.Context, binary, dir string) (*process, error) {
	cmd := exec.Command(binary)
	// It ends with its standard input: also if this process is killed.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting the floor: %w", err)
	}
	output, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the floor: %w", err)
	}
	defer func() { _ = output.Close() }()
	cmd.Stdout = writer
	p, err := launch("floor", dir, cmd)
	_ = writer.Close() // the floor has it open itself
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = output.Close() })
	defer stop()
	if err := output.SetReadDeadline(time.Now().Add(startWithin)); err != nil {
		p.stop()
		return nil, fmt.Errorf("starting the floor: %w", err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, p.failure(fmt.Errorf("waiting for the floor: %w", err))
	}
	p.address = strings.TrimSpace(line)
	return p, nil
}

// startPratique starts pratique serve with the policies of a folder and waits
// until it is ready. The hosts are those of registries over plain HTTP.
func startPratique(ctx context.Context, o options, policies string, hosts ...string) (*process, error) {
	ports, err := freePorts()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(o.pratique, "serve", "--policies", policies,
		"--registry-allow-cidrs", "127.0.0.0/8", "--insecure-registries", strings.Join(hosts, ","),
		"--bind-address", ports[0], "--health-address", ports[1], "--metrics-address", ports[2])
	began := time.Now()
	p, err := launch("pratique", o.dir, cmd)
	if err != nil {
		return nil, err
	}
	p.address, p.metrics = ports[0], ports[2]
	if err := p.await(ctx, "http://"+ports[1]+"/readyz"); err != nil {
		p.stop()
		return nil, p.failure(err)
	}
	p.ready = time.Since(began)
	return p, nil
}

// await waits until url answers 200.
func (p *process) await(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return fmt.Errorf("asking %s: %w", url, err)
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to be ready: %w", p.name, ctx.Err())
		case <-p.exited:
			return fmt.Errorf("waiting for %s to be ready: it ended (%s)", p.name, p.cmd.ProcessState)
		case <-time.After(probeEvery):
		}
	}
}

// freePorts finds three addresses on which nothing listens. All are held until
// the last is found, so that they differ.
func freePorts() ([3]string, error) {
	var addresses [3]string
	var held []net.Listener
	defer func() {
		for _, listener := range held {
			_ = listener.Close() // nobody was ever accepted
		}
	}()
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return addresses, fmt.Errorf("finding a free port: %w", err)
		}
		held = append(held, listener)
		addresses[i] = listener.Addr().String()
	}
	return addresses, nil
}

// userHZ is the unit of times in /proc: a hundredth of a second on every
// architecture that Go runs on (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
const userHZ = 100

// cpu is the time that the process has used so far, as user and in the kernel:
// fields 14 and 15 of /proc/pid/stat.
func (p *process) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading the time of %s: %w", p.name, err)
	}
	// The name of the program, field 2, is in parentheses and may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("reading the time of %s: /proc/pid/stat has %d fields", p.name, len(fields))
	}
	user, errUser := strconv.ParseInt(fields[utime], 10, 64)
	system, errSystem := strconv.ParseInt(fields[stime], 10, 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return 0, fmt.Errorf("reading the time of %s: %w", p.name, err)
	}
	return time.Duration(user+system) * (time.Second / userHZ), nil
}

// resident is the memory of a process in bytes. pid may be "self".
func resident(pid string) (int64, error) { return memory(pid, "VmRSS:") }

// memory is a line of /proc/pid/status, in bytes.
func memory(pid, field string) (int64, error) {
	data, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, fmt.Errorf("reading the memory of %s: %w", pid, err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading the memory of %s: %w", pid, err)
			}
			return kilobytes << 10, nil
		}
	}
	return 0, fmt.Errorf("reading the memory of %s: /proc/%s/status has no %s", pid, pid, field)
}
