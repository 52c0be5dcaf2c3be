// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// samples is of how many images the median is taken: enough that one slow
	// moment of the machine does not show.
	samples = 9
	// loggedWithin bounds the wait for the server's log, which is written after
	// the answer.
	loggedWithin = 5 * time.Second
)

// form is a way to sign, and to how many registry requests the first admission
// is held.
type form struct {
	name, repository string
	sign             func(registrytest.Image)
	most             int
}

// cost is what one admission took.
type cost struct {
	mutate, validate time.Duration
	requests         int // to the registry
}

// costs shows what an admission takes, by the server's own log and by what the
// registry was asked.
func (s *story) costs(ctx context.Context) error {
	s.show.Title("What an admission costs, the first time and again")
	s.show.Sayf("%d Pods of one container, each with an image of its own: the medians of the times, and the most requests.", samples)
	s.show.Sayf("Logging in at the registry is not counted.")
	const row = "%-34s %10s %10s %18v\n"
	fmt.Fprintf(s.show.out, row, "", "mutate", "validate", "registry requests")
	for _, f := range []form{
		{"cosign 2 (.sig)", "acme/costs-sig", s.signLegacy, 4},
		{"cosign 3 (bundle)", "acme/costs-bundle", s.signBundle, 5},
	} {
		first, again, err := s.sample(ctx, f)
		if err != nil {
			return err
		}
		for _, line := range []struct {
			name  string
			costs []cost
			most  int
		}{
			{"signed by " + f.name + ", first", first, f.most},
			{fmt.Sprintf("%*s", len("signed by , again")+len(f.name), "again"), again, 0},
		} {
			c := median(line.costs)
			fmt.Fprintf(s.show.out, row, line.name, milliseconds(c.mutate), milliseconds(c.validate), c.requests)
			if c.requests > line.most {
				return fmt.Errorf("an admission should take at most %d registry requests: %s", line.most, line.name)
			}
		}
	}
	fmt.Fprintf(s.show.out, "%-34s %10s\n", "pratique, from start to ready", fmt.Sprintf("%.1f s", s.Started.Seconds()))
	return nil
}

func (s *story) signLegacy(image registrytest.Image) {
	s.Registry.SignLegacy(&cleanup{}, image, s.images.key)
}

func (s *story) signBundle(image registrytest.Image) {
	s.Registry.SignBundle(&cleanup{}, image, s.images.key)
}

// sample has several images admitted, each twice.
func (s *story) sample(ctx context.Context, f form) (first, again []cost, err error) {
	first, again = make([]cost, samples), make([]cost, samples)
	for n := range samples {
		image := s.Registry.PushImage(&cleanup{}, fmt.Sprintf("%s-%d:v1", f.repository, n))
		f.sign(image)
		name := strings.ReplaceAll(image.Repository, "/", "-")
		if first[n], err = s.admit(ctx, name+"-first", image); err != nil {
			return nil, nil, err
		}
		if again[n], err = s.admit(ctx, name+"-again", image); err != nil {
			return nil, nil, err
		}
	}
	return first, again, nil
}

// median takes each figure by itself, but for the requests: those are the most.
func median(costs []cost) cost {
	var mutate, validate []time.Duration
	most := 0
	for _, c := range costs {
		mutate, validate = append(mutate, c.mutate), append(validate, c.validate)
		most = max(most, c.requests)
	}
	slices.Sort(mutate)
	slices.Sort(validate)
	return cost{mutate[len(mutate)/2], validate[len(validate)/2], most}
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

// admit has a Pod admitted, without making it. The name finds it in the log.
func (s *story) admit(ctx context.Context, name string, image registrytest.Image) (cost, error) {
	s.Registry.Reset()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image.ByTag()}}},
	}
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	if _, err := s.Client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, pod, options); err != nil {
		return cost{}, fmt.Errorf("admitting %s: %w", image.ByTag(), err)
	}
	c := cost{requests: len(s.Registry.Counted())}
	err := wait.PollUntilContextTimeout(ctx, poll, loggedWithin, true, func(context.Context) (bool, error) {
		took, err := s.reviewed(name)
		c.mutate, c.validate = took["mutate"], took["validate"]
		return len(took) == 2, err
	})
	if err != nil {
		return cost{}, fmt.Errorf("waiting until both passes over %s are in the server's log: %w", name, err)
	}
	return c, nil
}

// reviewed reads from the server's log how long each pass over an object took.
func (s *story) reviewed(name string) (map[string]time.Duration, error) {
	log, err := os.ReadFile(s.Log("pratique"))
	if err != nil {
		return nil, fmt.Errorf("reading the server's log: %w", err)
	}
	took := map[string]time.Duration{}
	for line := range strings.Lines(string(log)) {
		var review struct{ Msg, Name, Pass, Duration string }
		if json.Unmarshal([]byte(line), &review) != nil || review.Msg != "reviewed" || review.Name != name {
			continue
		}
		if took[review.Pass], err = time.ParseDuration(review.Duration); err != nil {
			return nil, fmt.Errorf("reading the server's log: %w", err)
		}
	}
	return took, nil
}
