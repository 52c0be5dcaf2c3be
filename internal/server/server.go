// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package server listens: for AdmissionReviews over TLS, and for probes, metrics
// and profiles. It knows how to stop without failing a request.
//
// The listener of reviews is an http.Server of its own and not
// controller-runtime's, which cannot be told how large a request's header may be,
// nor how long it may take: whoever reaches the port decides both (docs/adr/0012).
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
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

const (
	// stopWithin is how long requests in flight may take to finish once no more are
	// taken: as long as API servers wait for an answer by default.
	stopWithin = 10 * time.Second
	// readHeader bounds the time for a request's header, and for a TLS handshake.
	readHeader = 5 * time.Second
	// maxHeader bounds a request's header. An API server's is a few hundred bytes,
	// and some KiB more if it has been given a token for webhooks.
	maxHeader = 16 << 10
	// idle is how long a connection is kept without a request: as long as Go's own
	// clients keep theirs, which API servers are (http.DefaultTransport).
	idle = 90 * time.Second
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
	config, watcher, err := s.secured()
	if err != nil {
		return err
	}
	// The listeners outlive ctx by the time to drain.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serving := errgroup.WithContext(serving)
	health := http.NewServeMux()
	health.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	health.HandleFunc("/readyz", s.readyz)
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))

	// A port that is taken must be found before any review is answered.
	sides, err := listen(serving, side{"--health-address", o.HealthAddress, health, nil}, side{"--metrics-address", o.MetricsAddress, metrics, nil},
		side{"--pprof-address", o.PprofAddress, profiles(), nil}, side{"--bind-address", o.BindAddress, s.reviews(), config})
	if err != nil {
		return err
	}
	for listener, side := range sides {
		group.Go(func() error { return side.serve(serving, listener) })
	}
	group.Go(func() error {
		s.clients.follow(serving)
		return nil
	})
	group.Go(func() error {
		if err := watch(serving, watcher); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "--cert-dir is not watched: what changes there is served after a restart only")
		}
		return nil
	})
	group.Go(func() error {
		s.drain(ctx, serving)
		stop()
		return nil
	})
	return group.Wait()
}

// drain returns when the listeners should close: some time after ctx has ended,
// or when one of them has failed and serving ends.
func (s *server) drain(ctx, serving context.Context) {
	select {
	case <-serving.Done():
		return
	case <-ctx.Done():
	}
	logr.FromContextOrDiscard(ctx).Info("stopping", "drain", s.options.Drain)
	s.draining.Store(true)
	select {
	case <-serving.Done():
	case <-time.After(s.options.Drain):
	}
}

type server struct {
	options  Options
	clients  *clients // set by secured; nil for everybody
	draining atomic.Bool
}

// secured says how connections to the webhook are secured, and what keeps the
// certificate up to date; nil if nothing has to.
func (s *server) secured() (*tls.Config, *certwatcher.CertWatcher, error) {
	_, port, err := net.SplitHostPort(s.options.BindAddress)
	if err != nil {
		return nil, nil, fmt.Errorf("reading --bind-address: %w", err)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return nil, nil, fmt.Errorf("reading --bind-address: the port of %q must be a number from 1 to 65535", s.options.BindAddress)
	}
	if s.clients, err = newClients(s.options); err != nil {
		return nil, nil, err
	}
	// The API server speaks HTTP/1.1 to webhooks behind a Service (kubernetes
	// issue 75791), to others whatever they offer. So all understand
	// "Connection: close", and what is not spoken cannot be attacked
	// (CVE-2023-44487).
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	s.clients.require(config)
	var watcher *certwatcher.CertWatcher
	switch dir := s.options.CertDir; {
	case s.options.Certificate != nil:
		config.GetCertificate = s.options.Certificate
	case dir == "":
		config.Certificates, err = selfSigned()
	default:
		watcher, err = certwatcher.New(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
		if err != nil {
			return nil, nil, fmt.Errorf("reading --cert-dir %q: %w", dir, err)
		}
		config.GetCertificate = watcher.GetCertificate
	}
	return config, watcher, err
}

// watch follows the certificate's files until ctx ends.
func watch(ctx context.Context, watcher *certwatcher.CertWatcher) error {
	if watcher == nil {
		return nil
	}
	return watcher.Start(ctx)
}

// selfSigned makes a certificate now. Whoever calls cannot check it: it is for
// trying out.
func selfSigned() ([]tls.Certificate, error) {
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, nil)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return []tls.Certificate{pair}, nil
}

// reviews answers on the webhook's port.
func (s *server) reviews() http.Handler {
	mux := http.NewServeMux()
	for path, handler := range map[string]http.Handler{
		"/mutate": s.options.Mutate, "/validate": s.options.Validate, "/validate-imageconfig": s.options.ValidateImageConfig,
	} {
		mux.Handle(path, s.clients.still(s.closing(handler)))
	}
	// Whoever is about to have the API server ask, asks here first: on the port and
	// the way that it takes.
	mux.Handle("GET /readyz", s.clients.still(http.HandlerFunc(s.answers)))
	return mux
}

// closing asks clients, while draining, to come back on another connection:
// perhaps another replica takes it.
func (s *server) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
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
// the connection: shaking hands without a client certificate would be one more
// refusal at every probe, and would pass only because in TLS 1.3 a client is done
// before the server has looked at it.
func (s *server) listening(ctx context.Context) error {
	dialer := &net.Dialer{Timeout: connectWithin}
	connection, err := dialer.DialContext(ctx, "tcp", s.options.BindAddress)
	if err != nil {
		return fmt.Errorf("the webhook is not reachable: %w", err)
	}
	_ = connection.Close()
	return nil
}

// side is one of the ports.
type side struct {
	flag, address string
	handler       http.Handler
	secured       *tls.Config // that of the webhook; nil for plain HTTP
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

// serve answers until ctx ends, and then what is in flight.
func (s side) serve(ctx context.Context, listener net.Listener) error {
	base := ctx // a profile need not be finished
	if s.secured != nil {
		base = context.WithoutCancel(ctx)
		listener = tls.NewListener(listener, s.secured)
	}
	server := &http.Server{
		Handler: s.handler, BaseContext: func(net.Listener) context.Context { return base },
		MaxHeaderBytes: maxHeader, ReadHeaderTimeout: readHeader, IdleTimeout: idle,
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		stopped <- server.Shutdown(within)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s %q: %w", s.flag, s.address, err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("serving %s %q: requests were still in flight when the time to stop was over: %w", s.flag, s.address, err)
	}
	return nil
}
