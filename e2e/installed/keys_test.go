// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certificateSecret is where Pratique keeps its certificates.
const certificateSecret = "pratique-certificates"

// keys are whose keys the webhook and the API server go by.
type keys struct {
	leaf        string // its serial number
	by          int    // the index of the authority that signed it; -1 for none
	authorities []string
	bundle      []byte
}

// readKeys reads the Secret.
func readKeys(ctx context.Context) (k keys, err error) {
	secret, err := shared.client.CoreV1().Secrets(namespace).Get(ctx, certificateSecret, metav1.GetOptions{})
	if err != nil {
		return k, err
	}
	leaf, _, err := parse(secret.Data["tls.crt"])
	if err != nil {
		return k, err
	}
	k = keys{leaf: leaf.SerialNumber.Text(16), by: -1, bundle: secret.Data["ca.crt"]}
	for rest := k.bundle; len(bytes.TrimSpace(rest)) > 0; {
		var authority *x509.Certificate
		if authority, rest, err = parse(rest); err != nil {
			return k, err
		}
		if k.by < 0 && leaf.CheckSignatureFrom(authority) == nil {
			k.by = len(k.authorities)
		}
		k.authorities = append(k.authorities, authority.SerialNumber.Text(16))
	}
	return k, nil
}

// parse reads the first certificate.
func parse(content []byte) (_ *x509.Certificate, rest []byte, err error) {
	block, rest := pem.Decode(content)
	if block == nil {
		return nil, nil, errors.New("there is no certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	return certificate, rest, err
}

// until waits for the keys to be so, and returns them.
func (r *installation) until(t *testing.T, what string, so func(keys) bool) (found keys) {
	t.Helper()
	eventually(t, what, func(ctx context.Context) (err error) {
		if found, err = readKeys(ctx); err == nil && !so(found) {
			err = fmt.Errorf("leaf %s by %d of %q", found.leaf, found.by, found.authorities)
		}
		return err
	})
	return found
}

// settled: nothing is being replaced.
func (k keys) settled() bool { return len(k.authorities) == 1 && k.by == 0 }

func (r *installation) settled(t *testing.T) keys {
	t.Helper()
	return r.until(t, "there is one authority", keys.settled)
}

// deleteKeys is how an admin has new ones made.
func deleteKeys(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := shared.client.CoreV1().Secrets(namespace).Delete(ctx, certificateSecret, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// awaitCarried waits until both configurations have the authorities of the Secret.
func (r *installation) awaitCarried(t *testing.T) {
	t.Helper()
	eventually(t, "both configurations carry the authorities", func(ctx context.Context) error {
		k, err := readKeys(ctx)
		if err != nil {
			return err
		}
		admission := shared.client.AdmissionregistrationV1()
		m, err := admission.MutatingWebhookConfigurations().Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return err
		}
		v, err := admission.ValidatingWebhookConfigurations().Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var bundles [][]byte
		for _, w := range m.Webhooks {
			bundles = append(bundles, w.ClientConfig.CABundle)
		}
		for _, w := range v.Webhooks {
			bundles = append(bundles, w.ClientConfig.CABundle)
		}
		for _, bundle := range bundles {
			if !bytes.Equal(bundle, k.bundle) {
				return errors.New("one does not")
			}
		}
		return nil
	})
}
