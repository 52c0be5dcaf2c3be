// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pratique-dev/pratique/api/v1alpha1"
)

const (
	// maxMessage is the longest message of a condition (k8s.io/apimachinery
	// meta/v1, Condition.Message).
	maxMessage = 32768
	// writeAgain is when statuses that could not be written are tried again.
	writeAgain = 5 * time.Second
	// lookAgain is how often the leader looks for a new compilation.
	lookAgain = 250 * time.Millisecond
)

// statuses writes the conditions of ImageConfigs. Only the elected replica
// does; all of them have the same to say.
type statuses struct {
	client client.Client
	leads  func() bool
	// changed says that there is something new to say.
	changed  atomic.Bool
	compiled atomic.Pointer[[]Compiled]
	copied   atomic.Pointer[map[string]CopyResult]
}

// CopyResult is what came of copying the pull secret of an ImageConfig to the
// namespaces that inject selects.
type CopyResult struct {
	OK              bool
	Reason, Message string
}

func (s *statuses) publish(compiled []Compiled) {
	s.compiled.Store(&compiled)
	s.changed.Store(true)
}

// publishCopies takes what came of copying, by the ImageConfig's name.
func (s *statuses) publishCopies(results map[string]CopyResult) {
	if before := s.copied.Swap(&results); before == nil || !maps.Equal(*before, results) {
		s.changed.Store(true)
	}
}

// run writes what was published last, until ctx ends.
func (s *statuses) run(ctx context.Context) {
	log := logr.FromContextOrDiscard(ctx)
	wait := lookAgain
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = lookAgain
		if !s.leads() || s.compiled.Load() == nil || !s.changed.Swap(false) {
			continue
		}
		for _, c := range *s.compiled.Load() {
			if err := s.write(ctx, c); err != nil {
				log.Error(err, "cannot write the status of an ImageConfig", "name", c.Rule.Name)
				s.changed.Store(true)
				wait = writeAgain
			}
		}
	}
}

// conditions sets those of an ImageConfig, and reports whether any changed.
func (s *statuses) conditions(c Compiled, all *[]metav1.Condition) (changed bool) {
	set := func(kind string, holds bool, reason, message string) {
		status := metav1.ConditionFalse
		if holds {
			status = metav1.ConditionTrue
		}
		changed = meta.SetStatusCondition(all, metav1.Condition{
			Type: kind, Status: status, ObservedGeneration: c.Generation, Reason: reason, Message: clip(message, maxMessage),
		}) || changed
	}
	set(v1alpha1.ConditionReady, c.Ready, c.Reason, c.Message)
	if c.Rule.Authentication == nil || c.Rule.Authentication.Inject == nil {
		return meta.RemoveStatusCondition(all, v1alpha1.ConditionPullSecretsCopied) || changed
	}
	if copied := s.copied.Load(); copied != nil {
		if result, ok := (*copied)[c.Rule.Name]; ok {
			set(v1alpha1.ConditionPullSecretsCopied, result.OK, result.Reason, result.Message)
		}
	}
	return changed
}

// +kubebuilder:rbac:groups=pratique.dev,resources=imageconfigs/status,verbs=patch

// write sets the conditions, if they say something else already.
func (s *statuses) write(ctx context.Context, c Compiled) error {
	object := imageConfig()
	if err := s.client.Get(ctx, client.ObjectKey{Name: c.Rule.Name}, object); err != nil {
		return client.IgnoreNotFound(err)
	}
	raw, err := object.MarshalJSON()
	if err != nil {
		return fmt.Errorf("reading ImageConfig %q: %w", c.Rule.Name, err)
	}
	// Mistakes in spec are what the status tells of; here only status counts.
	config, _ := v1alpha1.Decode(raw)
	if config == nil || config.Generation != c.Generation {
		return nil // a newer one is on its way
	}
	if !s.conditions(c, &config.Status.Conditions) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": config.Status})
	if err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	err = s.client.Status().Patch(ctx, object, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patching the status: %w", err)
	}
	return nil
}

// clip shortens s to at most so many bytes, and splits no character.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}
