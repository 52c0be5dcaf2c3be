// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"github.com/pratique-dev/pratique/internal/metrics"
	"github.com/pratique-dev/pratique/internal/notice"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/registry"
)

// The reasons of Events about the files of a policy.json.
const (
	reasonContainersInvalid  = "ContainersPolicyInvalid"
	reasonContainersReloaded = "ContainersPolicyReloaded"
)

// containersSettings say which files there are of a policy.json.
type containersSettings struct {
	policy, registries string
	// local allows lookasides that are folders on this machine.
	local bool
	// warn is told what should be known of the files at first, nil for nobody.
	warn func(config.Problem)
}

// names are the flags that name them.
func (s containersSettings) names() string {
	var names []string
	if s.policy != "" {
		names = append(names, "--"+containersPolicyFlag)
	}
	if s.registries != "" {
		names = append(names, "--"+registriesDFlag)
	}
	return strings.Join(names, ", ")
}

// fetchedBy makes what rules rest on, with the files of a policy.json.
func fetchedBy(s settings, client *registry.Client, told reloads) (*fetched, error) {
	f, err := newFetched(s, client.Transport())
	if err != nil {
		return nil, err
	}
	if err := f.containersPolicy(s.containers, client, told); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// containersPolicy reads the files of a policy.json, and has them kept up to
// date. Without a board nobody but the log and the metrics is told.
func (f *fetched) containersPolicy(s containersSettings, source containers.Source, told reloads) error {
	if s.names() == "" {
		return nil
	}
	told.count = told.metrics.ContainersPolicy()
	files, err := containers.NewFiles(containers.FilesOptions{
		Policy: s.policy, Registries: s.registries, Local: s.local,
		Verify: containers.Options{Source: source},
		Changed: func() {
			told.swapped(f.containers.Loaded())
			f.tell()
		},
		Failed: told.reloaded,
	})
	if err != nil {
		return fmt.Errorf("reading %s:\n%w", s.names(), err)
	}
	f.containers = files
	told.swapped(files.Loaded())
	if s.warn != nil {
		for _, note := range files.Loaded().Notes {
			s.warn(note)
		}
	}
	f.loops = append(f.loops, files.Run)
	if told.board != nil {
		f.loops = append(f.loops, told.board.Run)
	}
	return nil
}

// reloads tells of the files of a policy.json when they change.
type reloads struct {
	log     logr.Logger
	metrics *metrics.Metrics
	board   *notice.Board // nil for none
	count   func(error)
}

// swapped tells what is in force, and what about it should be known.
func (r reloads) swapped(loaded *containers.Loaded) {
	r.log.Info("policy.json in force", "scopes", len(loaded.Rules), "notes", len(loaded.Notes))
	for _, note := range loaded.Notes {
		if note.Warning {
			r.log.Info("policy.json or registries.d: a warning", "problem", note.Error())
		} else {
			r.log.Error(nil, "policy.json: what a scope names cannot be read, and its images are held back", "problem", note.Error())
		}
	}
}

// reloaded tells that what is in the files cannot be put in force, or with nil
// that it can again.
func (r reloads) reloaded(err error) {
	r.count(err)
	what := notice.Notice{Action: "Reload", Reason: reasonContainersReloaded, Message: "policy.json and registries.d are good again, and in force"}
	if err == nil {
		r.log.Info(what.Message)
	} else {
		const kept = "policy.json or registries.d cannot be put in force: the last good ones stay"
		r.log.Error(err, kept)
		what.Bad, what.Reason, what.Message = true, reasonContainersInvalid, kept+": "+err.Error()
	}
	if r.board != nil {
		r.board.Post(what)
	}
}

// newReloads tells the cluster that this process serves, if there is one.
func newReloads(config *rest.Config, s settings, m *metrics.Metrics) (reloads, error) {
	r := reloads{metrics: m}
	if config == nil || !s.writes || s.containers.names() == "" {
		return r, nil
	}
	var err error
	r.board, err = notice.New(config, s.namespace)
	return r, err
}
