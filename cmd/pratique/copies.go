// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pratique-dev/pratique/internal/pullsecret"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/source"
)

// newCopier makes what keeps the copies of pull secrets that a cluster's
// ImageConfigs have injected, and tells their statuses.
func newCopier(config *rest.Config, cluster *source.Cluster, leads func() bool, s settings) (*pullsecret.Copier, error) {
	// Copies are not watched: that would take the right to list all Secrets.
	direct, err := client.New(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("making a client for pull secrets: %w", err)
	}
	return pullsecret.New(pullsecret.Options{
		Client: direct, Namespace: s.namespace, In: s.injectInto, Leads: leads,
		Wanted: func() []pullsecret.Copy { return wantedCopies(cluster) },
		Unread: func() bool {
			return slices.ContainsFunc(cluster.Set().Rules(), func(r *policy.Rule) bool { return r.Unread })
		},
		Source: cluster.OwnSecret, Namespaces: cluster.Namespaces, Changed: cluster.Changed(),
		Report: func(results map[string]pullsecret.Result) {
			told := make(map[string]source.CopyResult, len(results))
			for name, result := range results {
				told[name] = source.CopyResult(result)
			}
			cluster.ReportCopies(told)
		},
	}), nil
}

// wantedCopies lists what the ImageConfigs in force ask for, nil until they are
// read.
func wantedCopies(cluster *source.Cluster) []pullsecret.Copy {
	set := cluster.Set()
	if set == nil {
		return nil
	}
	wanted := []pullsecret.Copy{}
	for _, rule := range set.Injecting() {
		inject := rule.Authentication.Inject
		wanted = append(wanted, pullsecret.Copy{ImageConfig: rule.Name, Secret: inject.Secret, Namespaces: inject.Namespaces})
	}
	return wanted
}
