// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pratique-dev/pratique/registry"
)

// newNamedClient is newClientWith where the names resolve to addresses, and no
// others resolve. A name with several has the first, then the next, and the
// last for ever.
func newNamedClient(t *testing.T, o registry.Options, names map[string]string) *registry.Client {
	t.Helper()
	return newClientWith(t, registry.Resolving(o, newResolver(t, names)))
}

// newResolver asks a name server of the test's own, over UDP.
func newResolver(t *testing.T, names map[string]string) *net.Resolver {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		query, asked := make([]byte, 1<<10), map[string]int{}
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return // closed
			}
			if reply := resolve(query[:n], names, asked); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// resolve answers one query, or is nil if it is none.
func resolve(query []byte, names map[string]string, asked map[string]int) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	question := m.Questions[0]
	m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	name := strings.TrimSuffix(question.Name.String(), ".")
	written, known := names[name]
	if turns := strings.Fields(written); len(turns) > 0 {
		written = turns[min(asked[name], len(turns)-1)]
		if question.Type == dnsmessage.TypeA {
			asked[name]++
		}
	}
	switch address, err := netip.ParseAddr(written); {
	case !known || err != nil:
		m.RCode = dnsmessage.RCodeNameError
	case address.Is4() && question.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: address.As4()},
		}}
	case address.Is6() && question.Type == dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AAAAResource{AAAA: address.As16()},
		}}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
