// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// lookAgain is how often is asked whether this replica leads by now.
	lookAgain = 250 * time.Millisecond
	// retryAfter is when is looked again after an error: soon, for a replica that has
	// no certificate yet is not ready.
	retryAfter = time.Second
	// askFor bounds one look at the Secret, with a slow API server.
	askFor = 10 * time.Second
	// makerName is the field manager under which the Secret is made, ownerName
	// that under which it is filled.
	makerName = "pratique-made"
	ownerName = "pratique"
)

// Options are what a Keeper works with. All are needed.
type Options struct {
	// Client reads and writes the Secret. It must not read from a cache: what is
	// signed depends on what was read.
	Client client.Client
	// Namespace and Name are the Secret's.
	Namespace, Name string
	// Hosts are the names and addresses by which API servers reach the webhook.
	Hosts []string
	Times Times
	// Leads reports whether this replica is the one that writes now.
	Leads func() bool
	// Carried is since when both webhook configurations have carried an
	// authority; zero if they do not, or if that is not known yet. No
	// configuration at all carries everything.
	Carried func(*x509.Certificate) time.Time
	// Changed tells that the Secret did.
	Changed <-chan struct{}
	// Now is the time.
	Now func() time.Time
}

// Keeper keeps the certificate of one replica.
type Keeper struct {
	o      Options
	served atomic.Pointer[served]
	led    bool      // when it was last looked
	due    time.Time // of the next look
	told   string    // what the log was told last, to tell it once
}

// served is what a replica serves with, and what it came with.
type served struct {
	pair   tls.Certificate
	leaf   *leaf
	issuer authority
	// authorities are all that were trusted then: other replicas, which are late,
	// may serve what an older one of them signed.
	authorities []authority
}

// New makes a Keeper, which [Keeper.Run] sets to work.
func New(o Options) *Keeper { return &Keeper{o: o} }

// Certificate is the one to serve with, for [tls.Config.GetCertificate].
func (k *Keeper) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := k.served.Load()
	if s == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return &s.pair, nil
}

// Ready reports why there is no certificate that an API server would believe.
func (k *Keeper) Ready() error {
	s := k.served.Load()
	if s == nil {
		return fmt.Errorf("there is no certificate in Secret %s/%s yet", k.o.Namespace, k.o.Name)
	}
	if ends := s.leaf.certificate.NotAfter; ended(s.leaf.certificate, k.o.Now()) {
		return fmt.Errorf("the certificate ended at %s", ends.UTC().Format(time.RFC3339))
	}
	return nil
}

// Ends are when the certificate that is served, and its authority, are over;
// zero if there are none.
func (k *Keeper) Ends() (leaf, authority time.Time) {
	s := k.served.Load()
	if s == nil {
		return time.Time{}, time.Time{}
	}
	return s.leaf.certificate.NotAfter, s.issuer.certificate.NotAfter
}

// Bundle reads the authorities that the API server is to trust, in PEM form. An
// error is that there are none, or that they could not be read.
func (k *Keeper) Bundle(ctx context.Context) ([]byte, error) {
	_, s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	// Never a bundle by which what the Secret holds would not be believed.
	if s.issuer(k.o.Now()) < 0 {
		return nil, fmt.Errorf("the certificate in Secret %s/%s is not usable yet", k.o.Namespace, k.o.Name)
	}
	return s.bundle(), nil
}

// Run keeps the certificate until ctx ends. It writes only while this replica
// leads.
func (k *Keeper) Run(ctx context.Context) error {
	looking := time.NewTicker(min(lookAgain, k.o.Times.lookEvery()))
	defer looking.Stop()
	for {
		k.turn(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-k.o.Changed:
			k.due = time.Time{}
		case <-looking.C:
		}
	}
}

// turn looks at the Secret if it is time.
func (k *Keeper) turn(ctx context.Context) {
	leads := k.o.Leads()
	if leads && !k.led {
		k.due = time.Time{}
	}
	k.led = leads
	// Times are of this process's own clock, which is not that of Options.
	if time.Now().Before(k.due) {
		return
	}
	k.due = time.Now().Add(k.o.Times.lookEvery())
	bounded, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	err := k.look(bounded)
	if err == nil {
		k.told = ""
		return
	}
	k.due = time.Now().Add(min(retryAfter, k.o.Times.lookEvery()))
	if ctx.Err() == nil {
		k.tell(ctx, err)
	}
}

// tell logs an error that was not the last one.
func (k *Keeper) tell(ctx context.Context, err error) {
	if k.told == err.Error() {
		return
	}
	k.told = err.Error()
	log := logr.FromContextOrDiscard(ctx)
	log.Error(err, "cannot keep the webhook's certificate; the one that was read last goes on being served",
		"namespace", k.o.Namespace, "secret", k.o.Name)
}

// look takes over what the Secret holds, and writes it if this replica leads.
func (k *Keeper) look(ctx context.Context) error {
	secret, s, err := k.read(ctx)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	damaged := s.damaged
	s = k.remember(s)
	k.take(ctx, s)
	if k.o.Leads() {
		return k.write(ctx, secret, s)
	}
	if damaged && secret != nil {
		return fmt.Errorf("Secret %s/%s is incomplete or damaged; the elected replica will mend it", k.o.Namespace, k.o.Name) //nolint:staticcheck // a kind's name
	}
	return nil
}

// The Secret is read by its name, besides the watch that every replica has
// (policy/source). It is made by server-side apply, whose right to create can be
// narrowed to a name, which that of a POST cannot; and filled by an update, which
// says what it was made from, so that of two who both think they lead one fails.
//
// +kubebuilder:rbac:groups="",resources=secrets,resourceNames=pratique-certificates,verbs=create;get;patch;update,namespace=pratique-system

// read reads the Secret; nil and an error if there is none.
func (k *Keeper) read(ctx context.Context) (*corev1.Secret, state, error) {
	secret := &corev1.Secret{}
	if err := k.o.Client.Get(ctx, client.ObjectKey{Namespace: k.o.Namespace, Name: k.o.Name}, secret); err != nil {
		// What is in an error of decoding may quote the Secret.
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			return nil, state{}, fmt.Errorf("reading Secret %s/%s: %w", k.o.Namespace, k.o.Name, err)
		}
		return nil, state{}, fmt.Errorf("reading Secret %s/%s: the API server cannot be asked", k.o.Namespace, k.o.Name)
	}
	return secret, parse(secret.Data), nil
}

// take serves what was read, if an API server that trusts the authorities
// beside it would believe it. Else what is served stays.
func (k *Keeper) take(ctx context.Context, s state) {
	now := k.o.Now()
	issuer := s.issuer(now)
	if issuer < 0 {
		return
	}
	before := k.served.Swap(&served{
		pair: tls.Certificate{Certificate: [][]byte{s.leaf.certificate.Raw}, PrivateKey: s.leaf.key, Leaf: s.leaf.certificate},
		leaf: s.leaf, issuer: s.authorities[issuer], authorities: s.authorities,
	})
	if before != nil && before.leaf.certificate.Equal(s.leaf.certificate) {
		return
	}
	logr.FromContextOrDiscard(ctx).Info("serving another certificate", "serial", s.leaf.certificate.SerialNumber.Text(16),
		"ends", s.leaf.certificate.NotAfter, "authorities", len(s.authorities))
}

// remember adds to what was read what this replica knows, if the Secret lost it:
// other replicas serve it too, and API servers believe it. Keys that are
// lost are not brought back, so that whoever removes the Secret to have others
// gets others, in good order.
func (k *Keeper) remember(s state) state {
	now, kept := k.o.Now(), k.served.Load()
	if kept == nil || !s.damaged && s.issuer(now) >= 0 {
		return s
	}
	if s.issuer(now) < 0 && kept.issuer.signed(kept.leaf, now) {
		s.leaf = kept.leaf
	}
	s.damaged = true
	s.authorities = slices.Clone(s.authorities)
	for _, a := range kept.authorities {
		if !slices.ContainsFunc(s.authorities, func(b authority) bool { return a.certificate.Equal(b.certificate) }) {
			s.authorities = append(s.authorities, authority{certificate: a.certificate})
		}
	}
	return s
}

// write makes the Secret what it should be next.
func (k *Keeper) write(ctx context.Context, secret *corev1.Secret, s state) error {
	if secret != nil && secret.Labels[labelMade] != valueMade {
		return fmt.Errorf("Secret %s/%s is not Pratique's own, which have the label %s=%s: it is not written; "+ //nolint:staticcheck // a kind's name
			"remove it, or use --cert-dir for a certificate of your own", k.o.Namespace, k.o.Name, labelMade, valueMade)
	}
	p := planner{times: k.o.Times, names: k.o.Hosts, carried: k.o.Carried}
	next, changed, err := p.next(k.o.Now(), s)
	if err != nil || !changed {
		return err
	}
	data, err := next.data()
	if err != nil {
		return err
	}
	if secret == nil {
		if secret, err = k.make(ctx); err != nil {
			return err
		}
		if len(secret.Data) > 0 {
			k.due = time.Time{} // of somebody who led too: it is read again
			return nil
		}
	}
	if !k.o.Leads() {
		return nil
	}
	return k.fill(ctx, secret, next, data)
}

// fill writes a state into the Secret that it was made from.
func (k *Keeper) fill(ctx context.Context, secret *corev1.Secret, next state, data map[string][]byte) error {
	secret.Data = data
	if err := k.o.Client.Update(ctx, secret, client.FieldOwner(ownerName)); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			k.due = time.Time{} // what it was made from is no more
			return nil
		}
		return fmt.Errorf("writing Secret %s/%s: %w", k.o.Namespace, k.o.Name, kindOf(err))
	}
	logr.FromContextOrDiscard(ctx).Info("wrote the webhook's certificates", "namespace", k.o.Namespace, "secret", k.o.Name,
		"authorities", len(next.authorities), "leafEnds", next.leaf.ends())
	k.take(ctx, next)
	return nil
}

// ends is for the log.
func (l *leaf) ends() string {
	if l == nil {
		return "there is none"
	}
	return l.certificate.NotAfter.UTC().Format(time.RFC3339)
}

// make makes the Secret, empty. Who does the same at the same time does no harm.
func (k *Keeper) make(ctx context.Context) (*corev1.Secret, error) {
	empty := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeOpaque),
		"metadata": map[string]any{
			"namespace": k.o.Namespace, "name": k.o.Name,
			"labels": map[string]any{labelMade: valueMade, "app.kubernetes.io/managed-by": "pratique"},
		},
	}}
	err := k.o.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(empty), client.FieldOwner(makerName))
	if err != nil {
		return nil, fmt.Errorf("making Secret %s/%s: %w", k.o.Namespace, k.o.Name, kindOf(err))
	}
	secret, _, err := k.read(ctx)
	return secret, err
}

// kindOf is an error of the API server's without what was sent, which it may
// quote.
func kindOf(err error) error {
	reason := apierrors.ReasonForError(err)
	if reason == metav1.StatusReasonForbidden {
		return err // says who may not do what, and nothing of the object
	}
	if reason == metav1.StatusReasonUnknown {
		return errors.New("the API server cannot be asked, or refused it")
	}
	return fmt.Errorf("the API server answered %s", reason)
}
