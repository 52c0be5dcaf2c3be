// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"bufio"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"
)

// halfARequest connects, and sends the beginning of a request.
func halfARequest(t *testing.T, address, text string) *tls.Conn {
	t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	connection, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	// Whatever else bounds it takes less.
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return connection.(*tls.Conn)
}

// TestHeaderWithoutEnd: it is refused as soon as it is larger than any that an
// API server sends.
func TestHeaderWithoutEnd(t *testing.T) {
	t.Parallel()
	o := options(t, func(http.ResponseWriter, *http.Request) { t.Error("a review arrived") })
	start(t, o)
	// Of a header of 1 MB no more is sent.
	connection := halfARequest(t, o.BindAddress, "POST /validate HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 32<<10))
	status, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil || !strings.Contains(status, " 431 ") {
		t.Errorf("answered %q: %v", status, err)
	}
}

// TestHeaderOfAPIServer: a long token has room.
func TestHeaderOfAPIServer(t *testing.T) {
	t.Parallel()
	o := options(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	start(t, o)
	connection := halfARequest(t, o.BindAddress, "POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer "+strings.Repeat("x", 12<<10)+"\r\n\r\n")
	status, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil || !strings.Contains(status, " 204 ") {
		t.Errorf("answered %q: %v", status, err)
	}
}

// TestSlowHeader: who sends half a header is not waited for.
func TestSlowHeader(t *testing.T) {
	t.Parallel()
	o := options(t, func(http.ResponseWriter, *http.Request) { t.Error("a review arrived") })
	start(t, o)
	connection := halfARequest(t, o.BindAddress, "POST /validate HTTP/1.1\r\nHost:")
	if n, err := connection.Read(make([]byte, 1)); n > 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("not ended: %d bytes, %v", n, err)
	}
}
