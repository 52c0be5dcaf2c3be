// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/env"
)

// certificates are what the Secret holds.
type certificates struct {
	leaf        string // its serial number
	by          int    // the index of the authority that signed it; -1 for none
	authorities []string
	bundle      []byte
}

func (c certificates) String() string {
	return fmt.Sprintf("leaf %s by %d of %q", c.leaf, c.by, c.authorities)
}

func (f *fleet) certificates(ctx context.Context) (certificates, error) {
	c := certificates{by: -1}
	secret, err := f.client.CoreV1().Secrets(env.Namespace).Get(ctx, "pratique-certificates", metav1.GetOptions{})
	if err != nil {
		return c, err
	}
	c.bundle = secret.Data["ca.crt"]
	block, _ := pem.Decode(secret.Data["tls.crt"])
	if block == nil {
		return c, errors.New("there is no leaf")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return c, err
	}
	c.leaf = leaf.SerialNumber.Text(16)
	for block, rest := pem.Decode(c.bundle); block != nil; block, rest = pem.Decode(rest) {
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return c, err
		}
		if c.by < 0 && leaf.CheckSignatureFrom(authority) == nil {
			c.by = len(c.authorities)
		}
		c.authorities = append(c.authorities, authority.SerialNumber.Text(16))
	}
	return c, nil
}

// until waits for the Secret to be so, and returns it.
func (f *fleet) until(t *testing.T, what string, so func(certificates) bool) (found certificates) {
	t.Helper()
	f.eventually(t, what, func(ctx context.Context) error {
		c, err := f.certificates(ctx)
		if err == nil && !so(c) {
			err = errors.New(c.String())
		}
		found = c
		return err
	})
	return found
}

// carried waits until both configurations have the authorities of the Secret.
func (f *fleet) carried(t *testing.T) {
	t.Helper()
	f.eventually(t, "both configurations carry the authorities", func(ctx context.Context) error {
		c, err := f.certificates(ctx)
		if err != nil {
			return err
		}
		m, v, err := f.configurations(ctx)
		if err != nil || m == nil || v == nil {
			return fmt.Errorf("not both are there: %w", err)
		}
		for _, w := range m.Webhooks {
			if !bytes.Equal(w.ClientConfig.CABundle, c.bundle) {
				return errors.New("mutation does not")
			}
		}
		for _, w := range v.Webhooks {
			if !bytes.Equal(w.ClientConfig.CABundle, c.bundle) {
				return errors.New("validation does not")
			}
		}
		return nil
	})
}

// stream asks without end, on two connections, and stop returns what went wrong
// and how often it was asked.
func (f *fleet) stream(t *testing.T) (stop func() (failures []string, asked int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var mu sync.Mutex
	var failures []string
	asked := 0
	for range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				err := f.ask(ctx)
				mu.Lock()
				asked++
				if err != nil && ctx.Err() == nil {
					failures = append(failures, time.Now().Format(time.TimeOnly)+" "+err.Error())
				}
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	return func() ([]string, int) {
		cancel()
		group.Wait()
		return failures, asked
	}
}

// TestRotation: two replicas change leaf and authority under load, and nobody
// notices. The times are short, and in the same order as the real ones.
func TestRotation(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const times = "45s,12s,4s,5s"
	one, two := f.replica(t, "one", "--cert-times", times), f.replica(t, "two", "--cert-times", times)
	f.eventually(t, "the webhook is asked", f.ask)
	first := f.until(t, "there is one authority", func(c certificates) bool { return len(c.authorities) == 1 && c.by == 0 })
	stop := f.stream(t)
	f.until(t, "another leaf, by the same authority", func(c certificates) bool { return c.leaf != first.leaf && c.authorities[c.by] == first.authorities[0] })
	both := f.until(t, "two authorities, the leaf by the old one", func(c certificates) bool { return len(c.authorities) == 2 && c.by == 1 })
	f.carried(t)
	f.until(t, "the leaf by the new one", func(c certificates) bool { return c.by == 0 && c.authorities[0] == both.authorities[0] })
	f.until(t, "the old one is gone", func(c certificates) bool { return len(c.authorities) == 1 && c.authorities[0] == both.authorities[0] })
	f.carried(t)
	failures, asked := stop()
	if len(failures) > 0 || asked < 100 {
		t.Errorf("%d of %d requests went wrong:\n%s", len(failures), asked, strings.Join(failures, "\n"))
	}
	f.end(t, one)
	f.end(t, two)
}

// TestSecretLost: the Secret is deleted or spoiled, and the leader killed in the
// middle of what follows. API servers believe every replica all the time.
func TestSecretLost(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const times = "1h,30m,4s,5s"
	f.replica(t, "one", "--cert-times", times)
	f.replica(t, "two", "--cert-times", times)
	f.eventually(t, "the webhook is asked", f.ask)
	before := f.until(t, "there is one authority", func(c certificates) bool { return len(c.authorities) == 1 && c.by == 0 })
	f.eventually(t, "both are ready", func(ctx context.Context) error {
		for _, r := range f.replicas {
			if !(&env.Server{Health: r.health}).Ready(ctx) {
				return errors.New(r.name + " is not")
			}
		}
		return nil
	})
	stop := f.stream(t)
	if err := f.client.CoreV1().Secrets(env.Namespace).Delete(t.Context(), "pratique-certificates", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	after := f.until(t, "a new authority, and the leaf that was served", func(c certificates) bool {
		return len(c.authorities) == 2 && c.by == 1 && c.leaf == before.leaf && c.authorities[1] == before.authorities[0]
	})
	leader := "one"
	if strings.Contains(f.log(t, "two"), "wrote the webhook's certificates") {
		leader = "two"
	}
	f.kill(t, f.replicas[leader])
	f.replica(t, "three", "--cert-times", times)
	f.until(t, "the next leader goes on with the same authority", func(c certificates) bool { return c.by == 0 && c.authorities[0] == after.authorities[0] })
	f.until(t, "the old one is gone", func(c certificates) bool { return len(c.authorities) == 1 })
	f.carried(t)

	for name, data := range map[string]string{
		"no leaf":           `{"tls.crt": null, "tls.key": null}`,
		"half of it":        `{"tls.crt": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="}`,
		"no authorities":    `{"ca.crt": null}`,
		"no authority's":    `{"ca.key": "AAAA"}`,
		"nothing":           `{"tls.crt": null, "tls.key": null, "ca.crt": null, "ca.key": null}`,
		"nothing but bytes": `{"tls.crt": "AAAA", "tls.key": "AAAA", "ca.crt": "AAAA", "ca.key": "AAAA"}`,
	} {
		f.patch(t, data)
		f.until(t, name+": mended", func(c certificates) bool { return c.by == 0 && len(c.authorities) == 1 })
		f.carried(t)
	}
	failures, asked := stop()
	for _, failure := range failures {
		// A replica that is killed breaks off what it is answering, once.
		if strings.Contains(failure, "x509") || strings.Contains(failure, "tls") || strings.Contains(failure, "nobody was asked") {
			t.Error(failure)
		}
	}
	if len(failures) > 10 || asked < 100 {
		t.Errorf("%d of %d requests went wrong:\n%s", len(failures), asked, strings.Join(failures, "\n"))
	}
	for _, r := range slices.Collect(maps.Values(f.replicas)) {
		f.end(t, r)
	}
}
