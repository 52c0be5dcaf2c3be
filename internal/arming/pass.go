// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Rights for the two configurations, each limited to the one name. Whoever may
// write webhook configurations of any name can have the API server show him every
// object and change it, so this is the right that matters most.
//
// create is limited to the name too, although that of a POST cannot be: it is
// used by server-side apply alone, whose request has the name. patch is that
// request. update replaces what somebody else added, which an apply leaves alone:
// a condition under which the webhook is not asked. delete follows the marker.
// get is what they are compared with, watch tells of changes.
//
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations;validatingwebhookconfigurations,resourceNames=pratique,verbs=create;delete;get;patch;update;watch
//
// The ClusterRole is read for its UID, by which it owns the configurations.
//
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=pratique,verbs=get
//
// The marker is read, by its name; who writes it is whoever runs pratique disarm.
//
// +kubebuilder:rbac:groups="",resources=configmaps,resourceNames=pratique-disarmed,verbs=get,namespace=pratique-system

// outcome is in what state a pass has left the configurations.
type outcome string

const (
	unknown  outcome = "unknown"  // they cannot be read
	unarmed  outcome = "unarmed"  // they are not there, or not both
	armed    outcome = "armed"    // they are in force
	disarmed outcome = "disarmed" // they are kept away
	asleep   outcome = "asleep"   // they are there, and not everybody in them is asked
)

// pass makes the configurations what they should be.
func (a *Armer) pass(ctx context.Context, spare bool) (outcome, error) {
	off, err := marked(ctx, a.o.Client, a.o.Namespace)
	if err != nil {
		return a.found(ctx), err
	}
	if off {
		return a.remove(ctx)
	}
	there, err := read(ctx, a.o.Client, a.o.Name)
	if err != nil {
		return unknown, err
	}
	a.carried.look(there)
	state := there.state()
	wanted, err := a.wanted(ctx, there, spare)
	if err != nil {
		return state, err
	}
	waiting, err := a.prove(ctx, wanted, there)
	if err != nil {
		return state, err
	}
	// Asking took its time: the switch may have been turned meanwhile.
	if off, err = marked(ctx, a.o.Client, a.o.Namespace); err != nil || off {
		return state, err
	}
	err = a.writeBoth(ctx, wanted, &there)
	a.carried.look(there)
	if err == nil {
		err = waiting
	}
	return there.state(), err
}

// prove asks for an answer wherever the API server is to ask and does not ask
// yet. Who is asked already goes on being asked there, by whatever authorities,
// until somebody answers at the other place; all else of it is put right. Without
// an answer nobody new is written, save where the authorities are somebody else's:
// there he sleeps until they have written them. waiting is why, if the authorities
// are there and nobody answers by them.
func (a *Armer) prove(ctx context.Context, wanted, there pair) (waiting, err error) {
	answers := a.asking(ctx)
	for i := range wanted {
		awake := awake(there[i])
		for _, w := range webhooks(wanted[i]) {
			before, asked := awake[nameOf(w)]
			switch {
			case asked && equal(clientConfig(w), clientConfig(before)):
			case asked:
				if err := answers(caBundle(w)); err != nil {
					w["clientConfig"] = clientConfig(before)
					waiting = err
				}
			case !a.o.Injected:
				if err := answers(caBundle(w)); err != nil {
					return nil, err
				}
			case len(caBundle(w)) == 0:
				sleep(w)
			default:
				if err := answers(caBundle(w)); err != nil {
					sleep(w)
					waiting = err
				}
			}
		}
	}
	return waiting, nil
}

// asking is [Options.Answers], asked once by each bundle.
func (a *Armer) asking(ctx context.Context) func(bundle []byte) error {
	known := map[string]error{}
	return func(bundle []byte) error {
		err, ok := known[string(bundle)]
		if ok {
			return err
		}
		if err = a.o.Answers(ctx, bundle); err != nil {
			err = fmt.Errorf("waiting for a replica that answers: %w", err)
		}
		known[string(bundle)] = err
		return err
	}
}

// writeBoth makes there what is wanted. Mutation first: what it does not pin,
// validation refuses.
func (a *Armer) writeBoth(ctx context.Context, wanted pair, there *pair) (err error) {
	for i := range wanted {
		if !a.o.Leads() {
			return errors.New("another replica leads by now")
		}
		if there[i], err = a.write(ctx, wanted[i], there[i]); err != nil {
			return err
		}
	}
	return nil
}

// found is in what state the configurations are, as far as can be read.
func (a *Armer) found(ctx context.Context) outcome {
	there, err := read(ctx, a.o.Client, a.o.Name)
	if err != nil {
		return unknown
	}
	return there.state()
}

// marked reports whether the marker is there.
func marked(ctx context.Context, c client.Reader, namespace string) (bool, error) {
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: Marker}, &corev1.ConfigMap{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading ConfigMap %s/%s: %w", namespace, Marker, err)
	}
	return true, nil
}

// remove takes both configurations away. Validation first: without mutation it
// would refuse what is not pinned.
func (a *Armer) remove(ctx context.Context) (outcome, error) {
	if !a.o.Leads() {
		return a.found(ctx), errors.New("another replica leads by now")
	}
	there, err := read(ctx, a.o.Client, a.o.Name)
	if err == nil && there != (pair{}) {
		err = remove(ctx, a.o.Client, a.o.Name)
	}
	if err != nil {
		return a.found(ctx), err
	}
	a.carried.look(pair{})
	return disarmed, nil
}

func remove(ctx context.Context, c client.Writer, name string) error {
	for _, kind := range []string{kindValidating, kindMutating} {
		if err := c.Delete(ctx, newObject(kind, name)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting %s %q: %w", kind, name, err)
		}
	}
	return nil
}

// wanted are the configurations as they should be, once somebody answers.
func (a *Armer) wanted(ctx context.Context, there pair, spare bool) (pair, error) {
	var owned []metav1.OwnerReference
	if a.o.Owner != "" {
		reference, err := a.owner(ctx)
		if err != nil {
			return pair{}, err
		}
		owned = append(owned, reference)
	}
	var bundle []byte
	if !a.o.Injected {
		var err error
		if bundle, err = a.o.Bundle(ctx); err != nil {
			return pair{}, err
		}
	}
	mutating, validating, err := a.o.Wanted(bundle, spare)
	if err != nil {
		return pair{}, err
	}
	wanted, err := newPair(mutating, validating)
	if err != nil {
		return pair{}, err
	}
	wanted.own(owned)
	if a.o.Injected {
		wanted.leaveBundles(there)
	}
	return wanted, nil
}

// owner is what owns the configurations. While it is not there they are not made:
// it goes first when Pratique is uninstalled, and they would be left behind.
func (a *Armer) owner(ctx context.Context) (metav1.OwnerReference, error) {
	role := &metav1.PartialObjectMetadata{}
	role.APIVersion, role.Kind = "rbac.authorization.k8s.io/v1", "ClusterRole"
	if err := a.o.Client.Get(ctx, client.ObjectKey{Name: a.o.Owner}, role); err != nil {
		return metav1.OwnerReference{}, fmt.Errorf("reading the owner of the webhook configurations, ClusterRole %q: %w", a.o.Owner, err)
	}
	if !role.DeletionTimestamp.IsZero() {
		return metav1.OwnerReference{}, fmt.Errorf("the owner of the webhook configurations, ClusterRole %q, is being deleted", a.o.Owner)
	}
	return metav1.OwnerReference{APIVersion: role.APIVersion, Kind: role.Kind, Name: role.Name, UID: role.UID}, nil
}
