// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/sigstore"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// startWithin bounds the start of everything that the cases share.
	startWithin = 2 * time.Minute
	// atOnce is how many cases run at the same time: most of them wait.
	atOnce = "8"
	// The credentials of the private registries.
	user, password = "robot", "s3cret-of-the-robot"
)

// world is what all cases share.
type world struct {
	*env.Env

	client  *kubernetes.Clientset // collects warnings
	dynamic dynamic.Interface     // too

	// Besides Env.Registry, which has the referrers API:
	withoutAPI *registrytest.Registry
	private    *registrytest.Registry // basic authentication
	tokens     *registrytest.Registry // bearer tokens
	// doomed is closed by a case.
	doomed *registrytest.Registry
	// distribution and memory hold what the command lines sign.
	distribution, memory *registry.Registry
	// sigstore is by what they sign without a key.
	sigstore *sigstore.Sigstore
	// outside is all that Pratique finds beyond loopback: a proxy that knows
	// nobody, and takes note of who is asked for.
	outside *registrytest.Proxy

	key, other *registrytest.Key

	// auditLog is where the API server notes what Pratique asks of it.
	auditLog string
}

// shared is set by TestMain, before the first case.
var shared *world

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			panic(err)
		}
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "pratique-cases-")
	if err != nil {
		return 1, err
	}
	ending := &ending{}
	defer func() {
		err = errors.Join(err, ending.run(), os.RemoveAll(dir))
	}()
	w, err := start(ending, dir)
	if err != nil {
		return 1, err
	}
	shared = w
	code = m.Run()
	return code, errors.Join(w.noRightMissed(), w.nobodyCalled(), w.sigstore.Failure())
}

// start starts the registries, the control plane and the server.
func start(end *ending, dir string) (_ *world, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	w := &world{
		withoutAPI: registrytest.New(end, registrytest.WithoutReferrers()),
		private:    registrytest.New(end, registrytest.WithBasicAuth(user, password)),
		tokens:     registrytest.New(end, registrytest.WithTokenAuth(user, password)),
		doomed:     registrytest.New(end),
		key:        registrytest.NewKey(end, registrytest.ECDSAP256),
		other:      registrytest.NewKey(end, registrytest.ECDSAP256),
		outside:    registrytest.NewProxy(end, nil),
	}
	options := env.Options{
		Dir: dir, Registry: registrytest.New(end), Inject: []string{injectedA, injectedB},
		Insecure:    []string{w.withoutAPI.Host(), w.private.Host(), w.tokens.Host(), w.doomed.Host()},
		Environment: []string{"HTTPS_PROXY=http://" + w.outside.Host(), "HTTP_PROXY=http://" + w.outside.Host()},
	}
	if options.APIServerArgs, w.auditLog, err = auditing(dir); err != nil {
		return nil, err
	}
	if w.distribution, err = registry.Distribution(registry.Options{Dir: filepath.Join(dir, "distribution")}); err != nil {
		return nil, err
	}
	end.add(w.distribution.Stop)
	if w.memory, err = registry.Memory(registry.Options{}); err != nil {
		return nil, err
	}
	end.add(w.memory.Stop)
	options.Insecure = append(options.Insecure, w.distribution.Host, w.memory.Host)
	if w.sigstore, err = sigstore.Start(ctx, sigstore.Options{Dir: filepath.Join(dir, "sigstore")}); err != nil {
		return nil, err
	}
	end.add(w.sigstore.Stop)
	if w.Env, err = env.Start(ctx, options); err != nil {
		return nil, err
	}
	end.add(w.Env.Cluster.Stop)

	config := w.Config()
	config.WarningHandlerWithContext = collector{}
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if w.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	if err := w.prepareCrossplane(ctx); err != nil {
		return nil, err
	}
	if err := w.preparePolicyController(ctx); err != nil {
		return nil, err
	}
	return w, w.installCrossplane(ctx)
}

// nobodyCalled says who was asked for beyond loopback, besides those that cases
// name and the repository of the public Sigstore, which one of them needs.
func (w *world) nobodyCalled() error {
	for _, target := range w.outside.Targets() {
		host, _, _ := net.SplitHostPort(strings.TrimPrefix(target, "CONNECT "))
		if host != publicSigstore && host != registry1Name && !strings.HasSuffix(host, ".example") {
			return fmt.Errorf("beyond loopback there was %s", target)
		}
	}
	return nil
}

// ending is a [registrytest.TB] outside of a test: it collects what has to be
// ended.
type ending struct{ functions []func() error }

func (*ending) Helper() {}

func (*ending) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (e *ending) Cleanup(f func()) {
	e.add(func() error {
		f()
		return nil
	})
}

func (e *ending) add(f func() error) { e.functions = append(e.functions, f) }

// run ends everything, the last started first.
func (e *ending) run() error {
	var errs []error
	for i := range e.functions {
		errs = append(errs, e.functions[len(e.functions)-1-i]())
	}
	return errors.Join(errs...)
}
