// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/registry/tokens"
)

const (
	// processName names its log.
	processName = "distribution"
	// processReady bounds its start, which takes a fraction of a second.
	processReady = 20 * time.Second
	reachWithin  = time.Second
	pollInterval = 10 * time.Millisecond
	// startAttempts allows for a port that somebody else took between choosing
	// it and listening on it.
	startAttempts = 3
)

// ProcessOptions say how a registry runs that is a process of its own. Only Dir
// is required.
type ProcessOptions struct {
	// Dir is where its content, its configuration and its log are; it is made if
	// need be. The content that an earlier registry left there is served again.
	Dir string
	// Address is where it listens, and is known by; empty means 127.0.0.1, known
	// as localhost, so that it is on one site with its token server.
	Address string
	// Port is that of Address to listen on; 0 means a free one.
	Port int
	// Cert is what it serves with; nil means plain HTTP.
	Cert *cluster.ServingCert
	// ClientCA, if not empty, is a PEM file of authorities. Who shows no
	// certificate that one of them signed is not answered.
	ClientCA string
	// Users maps names to passwords: it asks for basic authentication. SetUsers
	// changes them.
	Users map[string]string
	// Tokens is the server whose tokens it asks for. Users or Tokens, not both.
	Tokens *tokens.Server
	// Binary is the program; empty means bin/distribution of the nearest
	// checkout, or what the variable PRATIQUE_DISTRIBUTION names.
	Binary string
}

// A Process is the registry of github.com/distribution/distribution as its own
// process, as people run it: what it does about TLS and credentials is not this
// process's code.
type Process struct {
	// Host is "localhost:port" or "<Address>:port", the first part of an image
	// reference.
	Host string

	options ProcessOptions
	port    int
	process *cluster.Process
}

// StartProcess starts a registry and waits until it listens. It ends with Stop,
// and when this process ends.
func StartProcess(ctx context.Context, o ProcessOptions) (*Process, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Process{options: o}
	if err := p.SetUsers(o.Users); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		err := p.start(ctx)
		if err == nil {
			return p, nil
		}
		if o.Port != 0 || attempt == startAttempts || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

// complete checks the options, fills in what is left out, and makes the folder.
func (o *ProcessOptions) complete() (err error) {
	switch {
	case o.Dir == "":
		return errors.New("starting a registry: ProcessOptions.Dir is empty")
	case len(o.Users) > 0 && o.Tokens != nil:
		return errors.New("starting a registry: it asks for passwords or for tokens, not for both")
	}
	if o.Binary == "" {
		if o.Binary, err = findDistribution(); err != nil {
			return err
		}
	}
	// It has another working directory.
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return fmt.Errorf("finding the absolute path of %q: %w", o.Dir, err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("making the registry's folder: %w", err)
	}
	return nil
}

// findDistribution returns the program that make distribution builds.
func findDistribution() (string, error) {
	if path := os.Getenv("PRATIQUE_DISTRIBUTION"); path != "" {
		return path, nil
	}
	root, err := cluster.Checkout()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "distribution")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("finding the registry: %w; build it with: make distribution", err)
	}
	return path, nil
}

// Restart stops the registry, if it runs, lets the caller change how it runs,
// and starts it again with the same content at the same address.
func (p *Process) Restart(ctx context.Context, change func(*ProcessOptions)) error {
	if err := p.Stop(); err != nil {
		return err
	}
	change(&p.options)
	p.options.Port = p.port
	if err := p.SetUsers(p.options.Users); err != nil {
		return err
	}
	return p.start(ctx)
}

// Stop ends the registry. Calling it again does nothing.
func (p *Process) Stop() error {
	if p.process == nil {
		return nil
	}
	running := p.process
	p.process = nil
	return running.Stop()
}

// PID is the id of the process, which must be running.
func (p *Process) PID() int { return p.process.PID() }

// Log is the path of what it printed since it was started last.
func (p *Process) Log() string { return filepath.Join(p.options.Dir, processName+".log") }

// SetUsers says who may use it from now on, at once: it reads the file again
// when that changes.
func (p *Process) SetUsers(users map[string]string) error {
	p.options.Users = users
	var lines strings.Builder
	for user, password := range users {
		// The least that bcrypt can do: each request to the registry pays for it.
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return fmt.Errorf("hashing a password: %w", err)
		}
		fmt.Fprintf(&lines, "%s:%s\n", user, hash)
	}
	// Not for a moment must it read half of the file.
	if err := os.WriteFile(p.passwords()+".new", []byte(lines.String()), 0o600); err != nil {
		return fmt.Errorf("writing the registry's passwords: %w", err)
	}
	if err := os.Rename(p.passwords()+".new", p.passwords()); err != nil {
		return fmt.Errorf("writing the registry's passwords: %w", err)
	}
	return nil
}

func (p *Process) passwords() string { return filepath.Join(p.options.Dir, "htpasswd") }

// Transport is that of a client that trusts the registry's authority, and its
// token server's if that has the same, and shows the certificates.
func (p *Process) Transport(shown ...tls.Certificate) *http.Transport {
	config := &tls.Config{Certificates: shown, MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if p.options.Cert != nil {
		config.RootCAs.AppendCertsFromPEM(p.options.Cert.CAPEM)
	}
	return &http.Transport{TLSClientConfig: config}
}

func (p *Process) start(ctx context.Context) error {
	p.port = p.options.Port
	if p.port == 0 {
		ports, err := cluster.FreePorts(1)
		if err != nil {
			return err
		}
		p.port = ports[0]
	}
	p.Host = fmt.Sprintf("%s:%d", cmp.Or(p.options.Address, "localhost"), p.port)
	config, err := p.config()
	if err != nil {
		return err
	}
	file := filepath.Join(p.options.Dir, "config.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return fmt.Errorf("writing the registry's configuration: %w", err)
	}
	p.process, err = cluster.StartProcess(p.options.Dir, cluster.Program{
		Name: processName, Binary: p.options.Binary, Args: []string{"serve", file},
	})
	if err != nil {
		return err
	}
	if err := p.await(ctx); err != nil {
		_ = p.Stop() // how it ended is in err
		return fmt.Errorf("starting the registry: %w", err)
	}
	return nil
}

func (p *Process) listen() string {
	return fmt.Sprintf("%s:%d", cmp.Or(p.options.Address, "127.0.0.1"), p.port)
}

// config is its configuration, in that part of YAML which is JSON.
func (p *Process) config() ([]byte, error) {
	type object = map[string]any
	listen := object{"addr": p.listen()}
	if cert := p.options.Cert; cert != nil {
		served := object{"certificate": cert.CertFile, "key": cert.KeyFile}
		if p.options.ClientCA != "" {
			served["clientcas"] = []string{p.options.ClientCA}
		}
		listen["tls"] = served
	}
	config := object{
		"version": "0.1", "http": listen, "log": object{"level": "info"},
		"storage": object{
			"filesystem":  object{"rootdirectory": filepath.Join(p.options.Dir, "content")},
			"delete":      object{"enabled": true},
			"maintenance": object{"uploadpurging": object{"enabled": false}}, // see Distribution
		},
	}
	if len(p.options.Users) > 0 {
		config["auth"] = object{"htpasswd": object{"realm": "pratique-e2e", "path": p.passwords()}}
	}
	if p.options.Tokens != nil {
		keys, err := p.options.Tokens.JWKS()
		if err != nil {
			return nil, err
		}
		file := filepath.Join(p.options.Dir, "jwks.json")
		if err := os.WriteFile(file, keys, 0o600); err != nil {
			return nil, fmt.Errorf("writing the key of tokens: %w", err)
		}
		config["auth"] = object{"token": object{
			"realm": p.options.Tokens.Realm(), "service": tokens.Service, "issuer": tokens.Issuer, "jwks": file,
		}}
	}
	content, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encoding the registry's configuration: %w", err)
	}
	return content, nil
}

// await waits until the registry listens. Over TLS nobody else can be taken for
// it.
func (p *Process) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, processReady, fmt.Errorf("it does not listen after %s", processReady))
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := p.reach(ctx)
		if failure := p.process.Failure(); failure != nil {
			return failure
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// reach connects. A TLS client has done so before it is told that it should
// have shown a certificate. Who else listens there may never answer.
func (p *Process) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	var connection net.Conn
	var err error
	if p.options.Cert == nil {
		connection, err = (&net.Dialer{}).DialContext(ctx, "tcp", p.Host)
	} else {
		connection, err = (&tls.Dialer{Config: p.Transport().TLSClientConfig}).DialContext(ctx, "tcp", p.Host)
	}
	if err != nil {
		return err
	}
	return connection.Close()
}
