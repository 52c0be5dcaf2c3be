// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// startTime bounds the start of a child until its greeting: initializing the
	// program takes a tenth of a second, and many times that on a processor that
	// is shared.
	startTime = 10 * time.Second
	// settleTime bounds what a child does between its answer and its next
	// greeting: giving memory back.
	settleTime = 5 * time.Second
	// maxComplaint is how much of a child's standard error is kept, to tell from
	// its beginning why the runtime ended it. It is never shown.
	maxComplaint = 2 << 10
)

// child is a process that runs Serve.
type child struct {
	command   *exec.Cmd
	in, out   *os.File
	complaint *head
	done      chan struct{} // closed when the process is reaped
}

// startChild starts a process. It does not end with ctx: it may serve others.
func startChild(ctx context.Context, o Options) (*child, error) {
	if len(o.Command) == 0 {
		return nil, errors.New("there is no command for it")
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), theirIn.Close())
	}
	c := &child{in: in, out: out, complaint: &head{}, done: make(chan struct{})}
	//nolint:gosec // the command is the program's own
	c.command = exec.CommandContext(context.WithoutCancel(ctx), o.Command[0], o.Command[1:]...)
	c.command.Env = append([]string{}, o.Env...) // nil would be the parent's
	c.command.Dir = "/"
	c.command.Stdin, c.command.Stdout, c.command.Stderr = theirIn, theirOut, c.complaint
	c.command.WaitDelay = time.Second
	c.command.SysProcAttr = childAttributes()
	err = c.command.Start()
	_, _ = theirIn.Close(), theirOut.Close()
	if err != nil {
		close(c.done)
		c.retire()
		return nil, err
	}
	go func() {
		_ = c.command.Wait() // the state tells
		close(c.done)
	}()
	return c, nil
}

// greeted waits until the child can take a request.
func (c *child) greeted(limit time.Duration) error {
	if err := c.out.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	frame, err := readFrame(c.out, len(greeting))
	if err != nil {
		return fmt.Errorf("waiting for its greeting: %w", err)
	}
	if string(frame) != greeting {
		return errors.New("it greets in a way that nobody knows")
	}
	return c.out.SetReadDeadline(time.Time{})
}

// ask sends a request and reads the answer. It ends when the child is killed.
func (c *child) ask(q request) (answer, error) {
	c.complaint.reset()
	if err := q.write(c.in); err != nil {
		return answer{}, err
	}
	frame, err := readFrame(c.out, maxAnswer)
	if err != nil {
		return answer{}, err
	}
	var a answer
	decoder := json.NewDecoder(bytes.NewReader(frame))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil {
		return answer{}, fmt.Errorf("decoding the answer: %w", err)
	}
	switch a.Kind {
	case answered, uncompiled, overtime, overlimit, failed:
		return a, nil
	default:
		return answer{}, errors.New("an answer of a kind that nobody knows")
	}
}

// kill ends the process, and whatever waits for it.
func (c *child) kill() {
	_ = c.command.Process.Kill() // it may have ended by itself
	_ = c.in.SetDeadline(time.Unix(1, 0))
	_ = c.out.SetDeadline(time.Unix(1, 0))
}

// retire kills the process, waits for its end and frees what it held.
func (c *child) retire() {
	if c.command.Process != nil {
		c.kill()
	}
	<-c.done
	_, _ = c.in.Close(), c.out.Close()
}

// alive reports whether the process has not ended.
func (c *child) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// refusals are how Go's runtime ends when the kernel refuses it memory (see
// limitData): it notices in its own data, wherever that next grows.
var refusals = []string{
	"out of memory", "cannot allocate memory", "failed to create new OS thread",
	"SIGSEGV: segmentation violation", "unexpected signal during runtime execution",
}

// cause is why a retired child ended, where nobody wanted it to.
func (c *child) cause() policy.Verdict {
	complaint := c.complaint.String()
	refused := func(sign string) bool { return strings.Contains(complaint, sign) }
	switch {
	case strings.Contains(complaint, "stack exceeds"):
		return policy.Undecided(policy.ReasonLimit, "the policy or the document nests too deeply")
	case c.command.ProcessState.ExitCode() == exitMemory, slices.ContainsFunc(refusals, refused):
		return policy.Undecided(policy.ReasonLimit, "evaluating the policy used more than %d MiB", memoryLimit>>20)
	default:
		return unexpected
	}
}

// head keeps the beginning of what is written to it.
type head struct {
	mu   sync.Mutex
	text []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, p[:min(len(p), maxComplaint-len(h.text))]...)
	return len(p), nil
}

func (h *head) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.text)
}
