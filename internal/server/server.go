// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package server listens: for AdmissionReviews over TLS, and for probes, metrics
// and profiles. It knows how to stop without failing a request.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

const (
	// stopWithin is how long requests in flight may take to finish once no more are
	// taken: as long as API servers wait for an answer by default.
	stopWithin = 10 * time.Second
	// readHeader bounds the time for a request's header, on the side servers.
	readHeader = 5 * time.Second
	// connectWithin bounds a connection to ourselves.
	connectWithin = time.Second
	// certFile and keyFile are in the folder of certificates, by the names that
	// kubernetes.io/tls Secrets have.
	certFile = "tls.crt"
	keyFile  = "tls.key"
	// none, as an address, means that nothing listens.
	none = "0"
)

// Options say what is served, and where.
type Options struct {
	BindAddress    string // of the webhook
	MetricsAddress string // of /metrics; 0 for none
	HealthAddress  string // of /healthz and /readyz; 0 for none
	PprofAddress   string // of /debug/pprof/; 0 for none
	// CertDir holds tls.crt and tls.key; empty means a self-signed certificate.
	CertDir string
	// Certificate is asked for the certificate at each handshake, instead of
	// CertDir; nil for nobody.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAFile holds the authorities, in PEM form, one of which must have
	// signed the certificate that the API server shows; empty means that none is
	// asked for. ClientNames are those, one of which must be the certificate's
	// common name or among its DNS names; nil means that any will do.
	ClientCAFile string
	ClientNames  []string
	// Drain is how long the server goes on after it stopped being ready, so
	// that whoever routes to it learns of it first.
	Drain time.Duration

	Mutate, Validate, ValidateImageConfig http.Handler

	Gatherer prometheus.Gatherer
	// Ready reports why reviews cannot be answered yet.
	Ready func() error
}

// Run serves until ctx ends, and then until the requests in flight are
// answered. It returns an error if it cannot listen.
func Run(ctx context.Context, o Options) error {
	s := &server{options: o}
	// The listeners outlive ctx by the time to drain.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serving := errgroup.WithContext(serving)
	hooks, err := s.webhooks(serving)
	if err != nil {
		return err
	}
	health := http.NewServeMux()
	health.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	health.HandleFunc("/readyz", s.readyz)
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))

	// A port that is taken must be found before any review is answered.
	sides, err := listen(serving, side{"--health-address", o.HealthAddress, health}, side{"--metrics-address", o.MetricsAddress, metrics},
		side{"--pprof-address", o.PprofAddress, profiles()})
	if err != nil {
		return err
	}
	group.Go(func() error {
		if err := hooks.Start(serving); err != nil {
			return fmt.Errorf("serving --bind-address %q: %w", o.BindAddress, err)
		}
		return nil
	})
	group.Go(func() error {
		s.clients.follow(serving)
		return nil
	})
	for listener, side := range sides {
		group.Go(func() error { return side.serve(serving, listener) })
	}
	group.Go(func() error {
		select {
		case <-serving.Done():
		case <-ctx.Done():
			logr.FromContextOrDiscard(ctx).Info("stopping", "drain", o.Drain)
			s.draining.Store(true)
			time.Sleep(o.Drain)
			stop()
		}
		return nil
	})
	return finish(ctx, group, o.Drain+stopWithin)
}

// finish waits for the servers, but no longer than that once they should stop.
func finish(ctx context.Context, group *errgroup.Group, within time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- group.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(within):
		return errors.New("requests were still in flight when the time to stop was over")
	}
}

type server struct {
	options  Options
	clients  *clients // set by webhooks; nil for everybody
	draining atomic.Bool
}

// webhooks prepares the server of reviews, which will be started with serving.
func (s *server) webhooks(serving context.Context) (webhook.Server, error) {
	host, port, err := net.SplitHostPort(s.options.BindAddress)
	if err != nil {
		return nil, fmt.Errorf("reading --bind-address: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return nil, fmt.Errorf("reading --bind-address: the port of %q must be a number from 1 to 65535", s.options.BindAddress)
	}
	configure := func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		// The API server speaks HTTP/1.1 to webhooks behind a Service (kubernetes
		// issue 75791), to others whatever they offer. So all understand
		// "Connection: close", and what is not spoken cannot be attacked
		// (CVE-2023-44487).
		c.NextProtos = []string{"http/1.1"}
		s.clients.require(c)
	}
	if s.clients, err = newClients(s.options); err != nil {
		return nil, err
	}
	switch {
	case s.options.Certificate != nil:
		configure = certified(configure, s.options.Certificate)
	case s.options.CertDir == "":
		configure, err = selfSigned(configure)
	default:
		err = checkPair(s.options.CertDir)
	}
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for path, handler := range map[string]http.Handler{
		"/mutate": s.options.Mutate, "/validate": s.options.Validate, "/validate-imageconfig": s.options.ValidateImageConfig,
	} {
		mux.Handle(path, s.clients.still(s.closing(serving.Err, handler)))
	}
	// Whoever is about to have the API server ask, asks here first: on the port and
	// the way that it takes.
	mux.Handle("GET /readyz", s.clients.still(http.HandlerFunc(s.answers)))
	return webhook.NewServer(webhook.Options{
		Host: host, Port: int(number), CertDir: s.options.CertDir, CertName: certFile, KeyName: keyFile,
		TLSOpts: []func(*tls.Config){configure}, WebhookMux: mux,
	}), nil
}

// checkPair reads the certificate once before it is served, because there it
// would fail without a word of the folder.
func checkPair(dir string) error {
	_, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return fmt.Errorf("reading --cert-dir %q: %w", dir, err)
	}
	return nil
}

// selfSigned serves a certificate made now. Whoever calls cannot check it: it
// is for trying out.
func selfSigned(configure func(*tls.Config)) (func(*tls.Config), error) {
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, nil)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return certified(configure, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }), nil
}

// certified serves what certificate returns.
func certified(configure func(*tls.Config), certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.Config) {
	return func(c *tls.Config) {
		configure(c)
		c.GetCertificate = certificate
	}
}

// closing lets requests in flight finish when the server ends: it makes their
// contexts from its own, which has ended once ended returns an error. A client
// that leaves still ends its request. While draining it asks clients to come
// back on another connection: perhaps another replica takes it.
func (s *server) closing(ended func() error, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		defer context.AfterFunc(r.Context(), func() {
			if ended() == nil {
				cancel()
			}
		})()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	err := s.options.Ready()
	switch {
	case s.draining.Load():
		err = errors.New("stopping")
	case err == nil:
		err = s.listening(r.Context())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// answers says on the webhook's own port whether reviews would be answered, and
// not why they would not: whoever reaches it is told no more.
func (s *server) answers(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() || s.options.Ready() != nil {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// listening reports why nobody could connect to the webhook. It says nothing on
// the connection: controller-runtime's own check shakes hands without a client
// certificate, which would be one more refusal at every probe, and passes only
// because in TLS 1.3 a client is done before the server has looked at it.
func (s *server) listening(ctx context.Context) error {
	dialer := &net.Dialer{Timeout: connectWithin}
	connection, err := dialer.DialContext(ctx, "tcp", s.options.BindAddress)
	if err != nil {
		return fmt.Errorf("the webhook is not reachable: %w", err)
	}
	_ = connection.Close()
	return nil
}

// side is a server of plain HTTP beside the webhook.
type side struct {
	flag, address string
	handler       http.Handler
}

// listen opens the ports of all sides that have an address, or none.
func listen(ctx context.Context, sides ...side) (map[net.Listener]side, error) {
	open := map[net.Listener]side{}
	for _, side := range sides {
		if side.address == none || side.address == "" {
			continue
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", side.address)
		if err != nil {
			for listener := range open {
				_ = listener.Close()
			}
			return nil, fmt.Errorf("serving %s %q: %w", side.flag, side.address, err)
		}
		open[listener] = side
	}
	return open, nil
}

func (s side) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: s.handler, ReadHeaderTimeout: readHeader}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s %q: %w", s.flag, s.address, err)
	}
	return nil
}
