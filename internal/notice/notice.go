// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package notice tells whoever runs Pratique, by Events on its own Pod, what
// they have to mend.
package notice

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	client "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"
)

const (
	// controller is who reports, by the form of such names.
	controller = "pratique.dev/pratique"
	// maxNote and maxInstance are the longest that the API server takes
	// (k8s.io/kubernetes pkg/apis/core/validation/events.go).
	maxNote     = 1024
	maxInstance = 128
	// postTime is how long one attempt may take.
	postTime = 10 * time.Second
	// attempts is how often it is tried to write one: the log has it too.
	attempts = 5
)

// An Event is never changed, and none is read.
//
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create,namespace=pratique-system

// Notice is what an Event says.
type Notice struct {
	// Bad says that there is something to mend.
	Bad             bool
	Reason, Message string
	// Action is what Pratique did, or could not.
	Action string
}

// Board writes Events on this replica's own Pod.
type Board struct {
	events client.EventInterface
	pod    corev1.ObjectReference
	// next is what is to be written; one that is newer takes the place of one that
	// is still waiting.
	next  chan Notice
	again time.Duration // after a failed attempt
}

// New makes a board for the Pod that POD_NAME names, and else the host's name,
// which in a Pod is the same. POD_UID, if it is set, lets kubectl describe find
// the Events. Nothing is written before Run.
func New(config *rest.Config, namespace string) (*Board, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("preparing to write Events: %w", err)
	}
	name := os.Getenv("POD_NAME")
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("finding the name of this Pod: %w", err)
		}
	}
	return &Board{
		events: clients.EventsV1().Events(namespace),
		pod: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: name, UID: types.UID(os.Getenv("POD_UID")),
		},
		next: make(chan Notice, 1), again: 2 * time.Second,
	}, nil
}

// Post has an Event written, and does not wait for it.
func (b *Board) Post(n Notice) {
	for {
		select {
		case b.next <- n:
			return
		default:
		}
		select {
		case <-b.next: // nobody needs to know it any more
		default:
		}
	}
}

// Run writes what is posted until ctx ends.
func (b *Board) Run(ctx context.Context) {
	log := logr.FromContextOrDiscard(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-b.next:
			if err := b.write(ctx, n); err != nil && ctx.Err() == nil {
				log.Error(err, "cannot write an Event", "reason", n.Reason)
			}
		}
	}
}

// write tries for a while, unless there is something newer to say.
func (b *Board) write(ctx context.Context, n Notice) (err error) {
	for attempt := range attempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(b.again):
			}
			if len(b.next) > 0 {
				return err
			}
		}
		if err = b.create(ctx, n); err == nil {
			return nil
		}
	}
	return err
}

func (b *Board) create(ctx context.Context, n Notice) error {
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	kind := corev1.EventTypeNormal
	if n.Bad {
		kind = corev1.EventTypeWarning
	}
	_, err := b.events.Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: "pratique-", Namespace: b.pod.Namespace},
		EventTime:           metav1.NowMicro(),
		ReportingController: controller, ReportingInstance: clip(b.pod.Name, maxInstance),
		Action: n.Action, Reason: n.Reason, Regarding: b.pod, Note: clip(n.Message, maxNote), Type: kind,
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("writing an Event in namespace %q: %w", b.pod.Namespace, err)
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
