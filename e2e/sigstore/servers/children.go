// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The ports inside the namespace, where nobody else is. The port 2112 is not
// among them: the timestamp authority and Rekor 1 open it whatever they are
// told.
const (
	issuersPort = 9101
	proxyPort   = 9102

	fulcioPort        = 9110
	fulcioGRPCPort    = 9111
	fulcioMetricsPort = 9112

	timestampPort = 9120

	rekor2Port        = 9130
	rekor2GRPCPort    = 9131
	rekor2MetricsPort = 9132

	trillianPort = 9140
	ctLogPort    = 9141

	rekor1Port = 9150
)

const (
	// readyWithin bounds the start of one server, which takes about a second,
	// more on a busy machine.
	readyWithin  = 60 * time.Second
	pollInterval = 20 * time.Millisecond
	pollTimeout  = 2 * time.Second
	// tailBytes bounds how much of the log of a server that failed is shown.
	tailBytes = 2 << 10
)

// A child is a server that is a process.
type child struct {
	name    string // of the log
	program string // beside this one
	args    []string
	env     []string
	ready   string // URL that answers 200 once it serves

	process *os.Process
	done    chan struct{} // closed when it has ended and was waited for
}

// children are the servers in the order of their start.
type children struct {
	dir, programs string
	all           []*child
}

func newChildren(dir string) (*children, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	// Rekor 1 goes on when the port of its metrics is taken, the timestamp
	// authority does not: hence this order.
	return &children{dir: dir, programs: filepath.Dir(self), all: []*child{
		timestampAuthority(dir), fulcio(dir), rekor2(dir), rekor1(dir),
	}}, nil
}

func timestampAuthority(dir string) *child {
	return &child{
		name: "timestamp", program: "timestamp-server", ready: "http://" + loopback(timestampPort) + "/ping",
		args: []string{
			"serve", "--host=127.0.0.1", "--port=" + strconv.Itoa(timestampPort),
			"--disable-ntp-monitoring", // it would ask time servers
			"--timestamp-signer=file",
			"--file-signer-key-path=" + filepath.Join(dir, "timestamp.key"),
			"--certificate-chain-path=" + filepath.Join(dir, "timestamp-chain.pem"),
		},
	}
}

func fulcio(dir string) *child {
	return &child{
		name: "fulcio", program: "fulcio", ready: "http://" + loopback(fulcioPort) + "/healthz",
		args: []string{
			"serve", "--config-path=" + filepath.Join(dir, "fulcio.json"),
			"--host=127.0.0.1", "--port=" + strconv.Itoa(fulcioPort),
			"--grpc-host=127.0.0.1", "--grpc-port=" + strconv.Itoa(fulcioGRPCPort),
			"--metrics-port=" + strconv.Itoa(fulcioMetricsPort),
			"--ca=fileca",
			"--fileca-cert=" + filepath.Join(dir, "fulcio-chain.pem"),
			"--fileca-key=" + filepath.Join(dir, "fulcio.key"), "--fileca-key-passwd=",
			"--fileca-watch=false",
			"--ct-log-url=http://" + loopback(ctLogPort) + "/" + ctLogPrefix,
			"--ct-log-public-key-path=" + filepath.Join(dir, "ctlog.pub"),
		},
		// Loopback is never reached by a proxy, so this is for the issuers alone.
		env: []string{
			"HTTPS_PROXY=http://" + loopback(proxyPort),
			"SSL_CERT_FILE=" + filepath.Join(dir, "web-root.pem"),
		},
	}
}

func rekor2(dir string) *child {
	return &child{
		name: "rekor2", program: "posix", ready: "http://" + loopback(rekor2Port) + "/healthz",
		args: []string{
			"serve",
			// The origin of its checkpoints. Clients look for the host of the log's
			// URL in the trust root, without the port.
			"--hostname=127.0.0.1",
			"--http-address=127.0.0.1", "--http-port=" + strconv.Itoa(rekor2Port),
			"--grpc-address=127.0.0.1", "--grpc-port=" + strconv.Itoa(rekor2GRPCPort),
			"--http-metrics-port=" + strconv.Itoa(rekor2MetricsPort),
			"--signer-filepath=" + filepath.Join(dir, "rekor2.key"),
			"--storage-dir=" + filepath.Join(dir, "rekor2"),
			// Each signature waits for a checkpoint that has it.
			"--batch-max-age=20ms", "--checkpoint-interval=200ms",
		},
	}
}

func rekor1(dir string) *child {
	return &child{
		name: "rekor1", program: "rekor-server", ready: "http://" + loopback(rekor1Port) + "/api/v1/log",
		args: []string{
			"serve", "--rekor_server.address=127.0.0.1", "--port=" + strconv.Itoa(rekor1Port),
			"--rekor_server.hostname=127.0.0.1",
			"--rekor_server.signer=" + filepath.Join(dir, "rekor1.key"),
			"--trillian_log_server.address=127.0.0.1", "--trillian_log_server.port=" + strconv.Itoa(trillianPort),
			// Searching would need a database.
			"--enabled_api_endpoints=getLogInfo,getPublicKey,getLogProof,createLogEntry,getLogEntryByIndex,getLogEntryByUUID,searchLogQuery",
			"--enable_retrieve_api=false",
		},
	}
}

// start starts all and returns when each is ready. When one ends after that,
// failed is called with what there is to say about it.
func (c *children) start(ctx context.Context, failed context.CancelCauseFunc) error {
	for i, s := range c.all {
		if i == len(c.all)-1 {
			// See newChildren: the others are started together, the last one after
			// the first is ready.
			if err := c.await(ctx, c.all[0]); err != nil {
				return err
			}
		}
		if err := c.launch(s); err != nil {
			return err
		}
	}
	for _, s := range c.all {
		if err := c.await(ctx, s); err != nil {
			return err
		}
		go func() {
			<-s.done
			failed(c.failure(s))
		}()
	}
	return nil
}

func (c *children) launch(s *child) error {
	log, err := os.Create(c.log(s))
	if err != nil {
		return fmt.Errorf("creating the log of %s: %w", s.name, err)
	}
	defer log.Close()
	// Not a shell's or a user's environment: all of them read variables.
	command := exec.Command(filepath.Join(c.programs, s.program), s.args...)
	command.Dir = c.dir
	command.Env = append([]string{"HOME=" + c.dir, "TMPDIR=" + os.TempDir()}, s.env...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.done = make(chan struct{})
	started := make(chan error)
	go func() {
		// The signal is sent when the thread ends that made the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		s.process = command.Process
		started <- err
		if err == nil {
			_ = command.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	return nil
}

// await waits until the server answers.
func (c *children) await(ctx context.Context, s *child) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("%s is not ready after %s", s.name, readyWithin))
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if answers(ctx, s.ready) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s\n%w", c.tail(s), context.Cause(ctx))
		case <-s.done:
			return c.failure(s)
		case <-tick.C:
		}
	}
}

func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// kill ends those that run. There is nothing that one of them should save.
func (c *children) kill() {
	for _, s := range c.all {
		if s.process == nil {
			continue
		}
		_ = s.process.Kill() // an error means that it has ended
		<-s.done
	}
}

// failure begins with the log: whoever shows the end of what this program
// printed shows what the matter is.
func (c *children) failure(s *child) error {
	return fmt.Errorf("%s\n%s ended by itself", c.tail(s), s.name)
}

func (c *children) log(s *child) string { return filepath.Join(c.dir, s.name+".log") }

// tail returns the end of the server's log.
func (c *children) tail(s *child) string {
	file, err := os.Open(c.log(s))
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := file.Seek(-tailBytes, io.SeekEnd); err != nil {
			return fmt.Sprintf("its log cannot be read: %v", err)
		}
	}
	content, err := io.ReadAll(io.LimitReader(file, tailBytes))
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	return fmt.Sprintf("the end of %s:\n%s", c.log(s), strings.TrimSpace(string(content)))
}
