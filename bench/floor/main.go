// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command floor is what every webhook costs at least: TLS, HTTP/1.1, an
// AdmissionReview decoded and one encoded with the standard library, and no
// question asked. It prints the address that it listens on, and ends with its
// standard input.
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/client-go/util/cert"
)

// The limits of internal/server, so that both servers do the same for a
// connection.
const (
	maxHeader  = 16 << 10
	idle       = 90 * time.Second
	readHeader = 5 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "floor: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	listener, err := listen()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: http.HandlerFunc(allow), MaxHeaderBytes: maxHeader, IdleTimeout: idle, ReadHeaderTimeout: readHeader,
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started it is gone
		_ = server.Close()
	}()
	_ = server.Serve(listener) // only ever ends because it was closed
	return nil
}

// listen uses the TLS settings and the kind of certificate that pratique serve
// has without --cert-dir.
func listen() (net.Listener, error) {
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair},
	})
}

func allow(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil || review.Request == nil {
		http.Error(w, "the body is not an AdmissionReview", http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	answer, err := json.Marshal(review)
	if err != nil {
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // a client that went away does not matter
}
