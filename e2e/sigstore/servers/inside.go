// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// firstInherited is the file descriptor after standard error, from where
// exec.Cmd.ExtraFiles count.
const firstInherited = 3

// runInside runs everything and returns when ctx ends or a server does.
func runInside(ctx context.Context, o options) error {
	if err := raiseLoopback(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	tree, err := startTrillian(ctx)
	if err != nil {
		return err
	}
	if err := startCTLog(ctx, o.dir, tree); err != nil {
		return err
	}
	if err := startIssuers(o); err != nil {
		return err
	}

	all, err := newChildren(o.dir)
	if err != nil {
		return err
	}
	defer all.kill()
	if err := all.start(ctx, cancel); err != nil {
		return err
	}
	for i, r := range relayed() {
		file := os.NewFile(uintptr(firstInherited+i), r.name)
		listener, err := net.FileListener(file)
		if err != nil {
			return fmt.Errorf("taking over the listener of %s: %w", r.name, err)
		}
		_ = file.Close() // FileListener works on a copy
		go accept(listener, loopback(r.port))
	}
	if _, err := fmt.Fprintln(os.Stdout, "ready"); err != nil {
		return fmt.Errorf("saying that the servers are ready: %w", err)
	}

	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// raiseLoopback turns on the only interface of a new namespace; the kernel then
// gives it 127.0.0.1 by itself.
func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("naming the loopback interface: %w", err)
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("asking for the loopback interface: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("turning on the loopback interface: %w", err)
	}
	return nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// accept relays each connection until the listener is closed, which is when
// this process ends.
func accept(listener net.Listener, address string) {
	for {
		outer, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer outer.Close()
			inner, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				return // the caller sees its connection closed
			}
			defer inner.Close()
			join(outer, inner)
		}()
	}
}

// join copies both ways until both ends have said all.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			if half, ok := pair[0].(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		})
	}
	both.Wait()
}
