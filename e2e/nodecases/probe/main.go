// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Probe is what the Pods of the node cases run. It says who it is and how it is
// confined, asks others, is a webhook that denies everything, and ends well when
// it is told to.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount"
	certs   = "/certs" // a Secret with tls.crt and tls.key, in the webhook's Pod
	within  = 5 * time.Second
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprint(w, name)
	})
	mux.HandleFunc("GET /confinement", func(w http.ResponseWriter, _ *http.Request) {
		status, _ := os.ReadFile("/proc/self/status")
		fmt.Fprintf(w, "%sread-only root:\t%t\n", status, errors.Is(os.WriteFile("/file", nil, 0o600), syscall.EROFS))
	})
	mux.HandleFunc("GET /ask", func(w http.ResponseWriter, r *http.Request) {
		answer, err := ask(r.Context(), r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, answer)
	})
	mux.HandleFunc("POST /deny", deny)
	finished := make(chan struct{}, 1)
	mux.HandleFunc("POST /finish", func(http.ResponseWriter, *http.Request) {
		select {
		case finished <- struct{}{}:
		default: // it was told so already
		}
	})

	failed := make(chan error, 2)
	go func() { failed <- server(mux, ":8080").ListenAndServe() }()
	if _, err := os.Stat(certs); err == nil {
		go func() {
			failed <- server(mux, ":8443").ListenAndServeTLS(filepath.Join(certs, "tls.crt"), filepath.Join(certs, "tls.key"))
		}()
	}
	fmt.Println("probe is up")
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	select {
	case <-ended:
	case <-finished:
	case err := <-failed:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func server(handler http.Handler, address string) *http.Server {
	return &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: within}
}

// ask gets a URL as a client in a Pod does: with the Pod's authority, and its
// token for the API server.
func ask(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	pool := x509.NewCertPool()
	if ca, err := os.ReadFile(filepath.Join(account, "ca.crt")); err == nil {
		pool.AppendCertsFromPEM(ca)
	}
	if token, err := os.ReadFile(filepath.Join(account, "token")); err == nil && strings.HasPrefix(url, "https://kubernetes.default.svc") {
		request.Header.Set("Authorization", "Bearer "+string(token))
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return fmt.Sprintf("%d %s", response.StatusCode, body), err
}

// deny answers an AdmissionReview.
func deny(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Request struct {
			UID string `json:"uid"`
		} `json:"request"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"response": map[string]any{
			"uid": review.Request.UID, "allowed": false, "status": map[string]any{"message": "the probe denies it"},
		},
	})
}
