// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package election chooses the one replica that writes.
//
// A replica that loses goes on answering and stands again: an API server that
// is away for a moment must not end the process that it will ask next.
package election

import (
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The times of the lease, as Kubernetes' own components have them.
const (
	leaseFor   = 15 * time.Second
	renewFor   = 10 * time.Second
	retryEvery = 2 * time.Second
)

// The right to create cannot be limited to a name: a request to create has none.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=create,namespace=pratique-system
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,resourceNames=pratique,verbs=get;update,namespace=pratique-system

// Candidate stands for election under a Lease.
type Candidate struct {
	elector *leaderelection.LeaderElector
}

// New makes a candidate for the Lease of that name and namespace.
func New(config *rest.Config, namespace, name string) (*Candidate, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("preparing the election: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("naming the candidate: %w", err)
	}
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, name,
		client.CoreV1(), client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())})
	if err != nil {
		return nil, fmt.Errorf("preparing the lease: %w", err)
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseFor, RenewDeadline: renewFor, RetryPeriod: retryEvery,
		ReleaseOnCancel: true,
		// Whoever writes asks Leads each time; nothing is started or stopped.
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the election: %w", err)
	}
	return &Candidate{elector: elector}, nil
}

// Leads reports whether this replica is the one now.
func (c *Candidate) Leads() bool { return c.elector.IsLeader() }

// Run stands for election until ctx ends, and gives the lease back then.
func (c *Candidate) Run(ctx context.Context) {
	for ctx.Err() == nil {
		c.elector.Run(ctx)
	}
}
