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
	unarmed  outcome = "unarmed"  // they are not there, or not both
	armed    outcome = "armed"    // they are in force
	disarmed outcome = "disarmed" // they are kept away
	asleep   outcome = "asleep"   // they are there, and nobody is asked
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
		return unarmed, err
	}
	a.carried.look(there)
	state := there.state()
	wanted, bundle, err := a.wanted(ctx, there, spare)
	if err != nil {
		return state, err
	}
	if wanted.leadsElsewhere(there) {
		if err := a.o.Answers(ctx, bundle); err != nil {
			return state, fmt.Errorf("waiting for a replica that answers: %w", err)
		}
		// Asking took its time: the switch may have been turned meanwhile.
		if off, err = marked(ctx, a.o.Client, a.o.Namespace); err != nil || off {
			return state, err
		}
	}
	err = a.writeBoth(ctx, wanted, &there)
	a.carried.look(there)
	return there.state(), err
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
		return unarmed
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

// wanted are the configurations as they should be, and the authorities by which
// a replica must answer before they may be.
func (a *Armer) wanted(ctx context.Context, there pair, spare bool) (_ pair, bundle []byte, err error) {
	var owned []metav1.OwnerReference
	if a.o.Owner != "" {
		reference, err := a.owner(ctx)
		if err != nil {
			return pair{}, nil, err
		}
		owned = append(owned, reference)
	}
	if !a.o.Injected {
		if bundle, err = a.o.Bundle(ctx); err != nil {
			return pair{}, nil, err
		}
	}
	mutating, validating, err := a.o.Wanted(bundle, spare)
	if err != nil {
		return pair{}, nil, err
	}
	wanted, err := newPair(mutating, validating)
	if err != nil {
		return pair{}, nil, err
	}
	wanted.own(owned)
	if !a.o.Injected {
		return wanted, bundle, nil
	}
	bundle = wanted.leaveBundles(there)
	if there.state() != armed && (len(bundle) == 0 || a.o.Answers(ctx, bundle) != nil) {
		// Nobody would be believed yet: they are there for who writes the
		// authorities into them, and nobody is asked.
		wanted.sleep()
	}
	return wanted, bundle, nil
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
