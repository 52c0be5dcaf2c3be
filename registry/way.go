// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

const (
	// maxWays is how many ways besides the server's own are kept: as many as
	// there are different Secrets in use. One is its authorities, some tens of
	// kilobytes, and its connections.
	maxWays = 256
	// wayIdle is when a way that nobody takes any more is forgotten.
	wayIdle = 10 * time.Minute
)

// way is one way of reaching registries: whom to trust, what to show. Its
// connections are its own, so that none that was made under one policy serves
// another.
type way struct {
	common *ways
	// open shows nothing; certified shows the client's certificate. Without one
	// they are the same.
	open, certified connections
}

// connections are those of one way that show the same.
type connections struct{ direct, proxied *http.Transport }

func (c connections) closeIdle() {
	c.direct.CloseIdleConnections()
	c.proxied.CloseIdleConnections()
}

// ways are the ways in use: the server's own, and those that ImageConfigs
// describe. All have the same guard, proxies and bounds.
type ways struct {
	own      *way
	others   *otter.Cache[[sha256.Size]byte, *way]
	roots    *x509.CertPool // nil means the system's
	dialer   *net.Dialer
	proxies  *proxies
	insecure []string
	observe  func(host string, status int, took time.Duration)
}

func newWays(o Options) (*ways, error) {
	g := guard{allow: o.AllowCIDRs, deny: o.DenyCIDRs, api: newAPIServer(o.APIServer, o.resolver)}
	proxies, err := newProxies(o, g)
	if err != nil {
		return nil, err
	}
	w := &ways{
		roots: o.RootCAs, proxies: proxies, observe: o.Observe,
		dialer: &net.Dialer{Timeout: dialTimeout, ControlContext: g.control, Resolver: o.resolver},
	}
	w.others, err = otter.New(&otter.Options[[sha256.Size]byte, *way]{
		MaximumSize:      maxWays,
		ExpiryCalculator: otter.ExpiryAccessing[[sha256.Size]byte, *way](wayIdle),
		OnDeletion:       func(e otter.DeletionEvent[[sha256.Size]byte, *way]) { e.Value.closeIdle() },
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of ways: %w", err)
	}
	for _, host := range o.Insecure {
		w.insecure = append(w.insecure, reference.CanonicalHost(host))
	}
	w.own = w.trusting(o.RootCAs, nil)
	return w, nil
}

// isInsecure reports whether the admin allows plain HTTP for a host.
func (w *ways) isInsecure(host string) bool {
	return slices.Contains(w.insecure, reference.CanonicalHost(host))
}

// of returns the way of a transport that is usable; nil is the server's own.
func (w *ways) of(transport *policy.Transport) (*way, error) {
	if transport == nil {
		return w.own, nil
	}
	if held, ok := w.others.GetIfPresent(transport.Hash); ok {
		return held, nil
	}
	roots, err := w.authorities(transport.Authorities)
	if err != nil {
		return nil, err
	}
	made := w.trusting(roots, transport.Certificate)
	kept, _ := w.others.ComputeIfAbsent(transport.Hash, func() (*way, bool) { return made, false })
	return kept, nil
}

// authorities are the server's and those in PEM form.
func (w *ways) authorities(added []byte) (*x509.CertPool, error) {
	if len(added) == 0 {
		return w.roots, nil
	}
	roots, err := w.rootsAlone()
	if err != nil {
		return nil, &Error{Reason: policy.ReasonNotReady, Message: err.Error(), cause: err}
	}
	if !roots.AppendCertsFromPEM(added) {
		return nil, &Error{Reason: policy.ReasonNotReady, Message: "the certificate authorities for it cannot be read"}
	}
	return roots, nil
}

// rootsAlone copies the server's authorities.
func (w *ways) rootsAlone() (*x509.CertPool, error) {
	if w.roots != nil {
		return w.roots.Clone(), nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
	}
	return roots, nil
}

// trusting makes a way.
func (w *ways) trusting(roots *x509.CertPool, certificate *tls.Certificate) *way {
	made := &way{common: w, open: w.connections(roots, nil)}
	made.certified = made.open
	if certificate != nil {
		made.certified = w.connections(roots, []tls.Certificate{*certificate})
	}
	return made
}

func (w *ways) connections(roots *x509.CertPool, shown []tls.Certificate) connections {
	bounded := func() *http.Transport {
		return newTransport(&tls.Config{RootCAs: roots, Certificates: shown, MinVersion: tls.VersionTLS12})
	}
	direct := bounded()
	direct.DialContext = w.dialer.DialContext
	return connections{direct: direct, proxied: w.proxies.through(bounded())}
}

func (w *way) closeIdle() {
	w.open.closeIdle()
	w.certified.closeIdle()
}

// carrier sends the requests of one login on its way. What a host is shown that
// asks for a client certificate hangs on the site alone.
type carrier struct {
	way  *way
	site site
}

// Transport sends requests that are about no image, as those for a trust root,
// on the server's own way: with the same guard, proxies and bounds, and without
// any credentials.
func (c *Client) Transport() http.RoundTripper { return carrier{way: c.ways.own} }

// RoundTrip implements [http.RoundTripper].
func (c carrier) RoundTrip(request *http.Request) (*http.Response, error) {
	over := c.way.open
	if c.site.includes(request.URL.Host) {
		over = c.way.certified
	}
	common := c.way.common
	via, err := common.proxies.choose(request, over)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	response, err := via.RoundTrip(request)
	if common.observe != nil {
		status := 0
		if response != nil {
			status = response.StatusCode
		}
		common.observe(request.URL.Host, status, time.Since(began))
	}
	return response, err
}
