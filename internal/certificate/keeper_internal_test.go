// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const (
	namespace = "pratique-system"
	name      = "pratique-certificates"
)

func key() client.ObjectKey { return client.ObjectKey{Namespace: namespace, Name: name} }

// newKeeper is a replica at a cluster.
func newKeeper(c client.Client, leads bool) *Keeper {
	return New(Options{
		Client: c, Namespace: namespace, Name: name, Hosts: []string{service}, Times: DefaultTimes(),
		Leads: func() bool { return leads }, Carried: func(*x509.Certificate) time.Time { return time.Time{} }, Now: start,
	})
}

func stored(t *testing.T, c client.Client) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), key(), secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestKeeper: who leads makes the Secret, who does not serves what is in it.
func TestKeeper(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().Build()
	leader, other := newKeeper(c, true), newKeeper(c, false)
	if err := other.look(t.Context()); err != nil || other.Ready() == nil {
		t.Errorf("without a Secret: %v, ready: %v", err, other.Ready())
	}
	if _, err := other.Certificate(nil); err == nil {
		t.Error("it serves something")
	}
	if err := leader.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	one, _ := leader.Certificate(nil)
	two, err := other.Certificate(nil)
	if err != nil || !one.Leaf.Equal(two.Leaf) || leader.Ready() != nil || other.Ready() != nil {
		t.Errorf("%v; ready: %v, %v", err, leader.Ready(), other.Ready())
	}
	// Nothing more is written.
	before := stored(t, c).ResourceVersion
	if err := leader.look(t.Context()); err != nil || stored(t, c).ResourceVersion != before {
		t.Errorf("%v; written again", err)
	}
	bundle, err := leader.Bundle(t.Context())
	if err != nil || !bytes.Equal(bundle, stored(t, c).Data["ca.crt"]) {
		t.Errorf("bundle: %v", err)
	}
	leaf, authority := other.Ends()
	if !leaf.Equal(start().Add(30*day)) || !authority.Equal(start().Add(365*day)) {
		t.Errorf("ends: %s, %s", leaf, authority)
	}
	other.o.Now = func() time.Time { return leaf }
	if err := other.Ready(); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("ready with a certificate that ended: %v", err)
	}
}

// TestSpoiledSecret: what was served goes on being served, and comes back.
func TestSpoiledSecret(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().Build()
	leader, other := newKeeper(c, true), newKeeper(c, false)
	for _, k := range []*Keeper{leader, other} {
		if err := k.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	served, _ := other.Certificate(nil)
	secret := stored(t, c)
	secret.Data = map[string][]byte{"tls.crt": []byte("nonsense")}
	if err := c.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if err := other.look(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
	if now, _ := other.Certificate(nil); !now.Leaf.Equal(served.Leaf) || other.Ready() != nil {
		t.Error("it serves something else")
	}
	if _, err := leader.Bundle(t.Context()); err == nil {
		t.Error("there is a bundle by which nobody is believed")
	}
	if err := leader.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := parse(stored(t, c).Data)
	if len(s.authorities) != 2 || s.issuer(start()) != 1 || !s.leaf.certificate.Equal(served.Leaf) {
		t.Errorf("mended to %+v", s)
	}
}

// TestForeignSecret: what is not ours is neither written nor hidden.
func TestForeignSecret(t *testing.T) {
	t.Parallel()
	data, err := stranger(t, start()).data()
	if err != nil {
		t.Fatal(err)
	}
	delete(data, "ca.key")
	c := fake.NewClientBuilder().WithObjects(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}).Build()
	before := stored(t, c).ResourceVersion
	err = newKeeper(c, true).look(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not Pratique's own") || stored(t, c).ResourceVersion != before {
		t.Errorf("got %v", err)
	}
}

// TestTwoLeaders: of two who write at once one wins, and both end up with what
// it wrote.
func TestTwoLeaders(t *testing.T) {
	t.Parallel()
	bare := fake.NewClientBuilder().Build()
	var other *Keeper
	var once atomic.Bool
	c := interceptor.NewClient(bare, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if once.CompareAndSwap(false, true) {
				if err := other.look(ctx); err != nil {
					t.Error(err)
				}
			}
			return c.Update(ctx, o, opts...)
		},
	})
	one := newKeeper(c, true)
	other = newKeeper(bare, true)
	if err := one.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := one.Ready(); err == nil {
		t.Error("it serves what was never stored")
	}
	if err := one.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, _ := one.Certificate(nil)
	second, _ := other.Certificate(nil)
	if !first.Leaf.Equal(second.Leaf) {
		t.Error("they serve different ones")
	}
}

// TestSoonAgain: after an error it is looked again soon, and after somebody else
// has made the Secret at the same time, at once.
func TestSoonAgain(t *testing.T) {
	t.Parallel()
	failing := true
	bare := fake.NewClientBuilder().Build()
	k := newKeeper(interceptor.NewClient(bare, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
			if failing {
				return errors.New("not now")
			}
			return c.Get(ctx, key, into, opts...)
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if err := newKeeper(bare, true).look(ctx); err != nil {
				t.Error(err)
			}
			return c.Apply(ctx, o, opts...)
		},
	}), true)
	k.turn(t.Context())
	if k.due.After(time.Now().Add(retryAfter)) {
		t.Errorf("it looks again at %s", k.due)
	}
	failing, k.due = false, time.Time{}
	k.turn(t.Context())
	if !k.due.IsZero() || k.Ready() == nil {
		t.Errorf("it looks again at %s; ready: %v", k.due, k.Ready())
	}
	k.turn(t.Context())
	if !k.due.After(time.Now().Add(retryAfter)) || k.Ready() != nil {
		t.Errorf("all is well: it looks again at %s; ready: %v", k.due, k.Ready())
	}
}

// TestNoSecretIsTold: errors of the API server's may quote what was sent.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	const hush = "hush-hush"
	for name, failure := range map[string]error{
		"plain":   errors.New(hush),
		"invalid": apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), hush, nil),
		"server":  &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: hush}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
				Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error { return failure },
			})
			err := newKeeper(c, true).look(t.Context())
			if err == nil || strings.Contains(err.Error(), hush) {
				t.Errorf("got %v", err)
			}
		})
	}
}
