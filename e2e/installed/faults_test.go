// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/registry"
)

const (
	// before and after are the seconds of a stream around a fault.
	before, after = 2, 3
	// coldImages are about one for each second of all rows.
	coldImages = 180
)

// The times of certificates, in the order that the real ones have
// (--cert-times): how long authorities and leaves are good, overlap, and time to
// retire. With the first nothing is replaced by itself while the rows last; with
// the second everything is within a minute, and nothing ends while it is being
// replaced.
const (
	longTimes  = "2h,1h,4s,5s"
	shortTimes = "60s,24s,4s,5s"
)

// fault is what a row is of.
type fault struct {
	name string
	// breaks: requests in flight may be broken off. A client that asks again for
	// 30 s still has an answer.
	breaks bool
	// prepare, if not nil, is called before the stream begins.
	prepare func(*testing.T, *installation)
	// inflict returns when the fault is over; that all replicas answer again is
	// waited for besides.
	inflict func(*testing.T, *installation, *stream)
}

// faults are in this order because the upgrade is to the short times.
var faults = []fault{
	{name: "none", inflict: func(t *testing.T, _ *installation, s *stream) { s.more(t, after) }},
	{name: "SIGKILL, replica after replica", breaks: true, inflict: killAll},
	{name: "drain, replica after replica", inflict: drainAll},
	{name: "SIGKILL of the leader in a rotation", breaks: true, inflict: killLeader},
	{name: "SIGKILL of the API server", breaks: true, inflict: restartAPIServer},
	{name: "registry stopped", inflict: stopRegistry},
	{name: "disk of the log full", inflict: fillLogs},
	{name: "helm upgrade", inflict: rollUpgrade},
	{name: "leaf and CA rotated", prepare: shorten, inflict: rotate},
}

// TestFaults: whatever happens, what is not signed is not admitted, and whoever
// asks again for 30 s has an answer; where nothing is killed nobody has to.
func TestFaults(t *testing.T) {
	began := time.Now()
	if err := shared.chill(t.Context(), coldImages); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "%d images that nobody has asked for yet made in %.1f s\n", coldImages, time.Since(began).Seconds())
	// Keys of short times are nothing for who comes after, and outlive the release.
	t.Cleanup(func() { deleteKeys(context.WithoutCancel(t.Context()), t) })
	r := install(t, "--set-json", timesArgument(longTimes))
	r.rules(t)
	var rows []*row
	t.Cleanup(func() { table(rows) })
	for _, f := range faults {
		var done *row
		passed := t.Run(f.name, func(t *testing.T) { done = r.suffer(t, f) })
		if done != nil {
			rows = append(rows, done)
		} else if !passed {
			return // it is not as before, and the next row would tell of that
		}
	}
}

func timesArgument(times string) string { return fmt.Sprintf(`extraArgs=["--cert-times=%s"]`, times) }

// suffer is one row.
func (r *installation) suffer(t *testing.T, f fault) *row {
	t.Helper()
	if f.prepare != nil {
		f.prepare(t, r)
	}
	fmt.Fprintf(os.Stdout, "%s: ", f.name)
	began := time.Now()
	s := newStream(t, f.name, enforced)
	defer s.stop()
	s.more(t, before)
	f.inflict(t, r, s)
	r.awaitReady(t, replicas)
	whole := time.Since(began)
	s.more(t, after)
	done := s.end()
	fmt.Fprintf(os.Stdout, "whole %.1f s after the stream began; %d admissions, %d of them of images that nobody had asked for\n",
		whole.Seconds(), done.admissions, done.cold)
	if err := done.broken(f.breaks); err != nil {
		t.Error(err)
	}
	for _, told := range done.told[raw] {
		t.Log(told)
	}
	return done
}

// killAll kills each of them, which its node starts again, before the next. The API
// server asks for a while whom it has asked before: some are asked nothing.
func killAll(t *testing.T, r *installation, _ *stream) {
	pods, err := r.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		r.kill(t, &pod)
		r.awaitReady(t, replicas)
	}
}

// kill kills the process of a replica, and waits until it was started again.
func (r *installation) kill(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if n, err := shared.node.Kill(program, pod.UID); err != nil || n != 1 {
		t.Fatalf("killed %d processes: %v", n, err)
	}
	eventually(t, "the replica was started again", func(ctx context.Context) error {
		now, err := shared.client.CoreV1().Pods(namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if n, was := restarts(now), restarts(pod); n <= was {
			return fmt.Errorf("%d restarts, before %d", n, was)
		}
		return nil
	})
}

func restarts(pod *corev1.Pod) (n int32) {
	for _, status := range pod.Status.ContainerStatuses {
		n += status.RestartCount
	}
	return n
}

// drainAll evicts each replica as soon as its PodDisruptionBudget lets it go, as
// who drains nodes does.
func drainAll(t *testing.T, r *installation, _ *stream) {
	pods, err := r.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, pod := range pods {
		eventually(t, pod.Name+" is evicted", func(ctx context.Context) error {
			eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: namespace}}
			err := shared.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(pod.Name).SubResource("eviction").
				MaxRetries(0).Body(eviction).Do(ctx).Error()
			if apierrors.IsTooManyRequests(err) {
				refused++
			}
			return err
		})
	}
	// The second is asked for right after the first has gone.
	if refused == 0 {
		t.Error("the PodDisruptionBudget refused nothing")
	}
}

// killLeader kills who is about to write the second half of a rotation.
func killLeader(t *testing.T, r *installation, _ *stream) {
	old := r.settled(t)
	deleteKeys(t.Context(), t)
	half := r.until(t, "a new authority is beside the old one, which the leaf is by", func(k keys) bool { return len(k.authorities) == 2 && k.by == 1 })
	r.kill(t, r.leader(t))
	r.until(t, "the next leader has gone on with it", func(k keys) bool {
		return k.settled() && k.authorities[0] == half.authorities[0] && k.leaf != old.leaf
	})
	r.awaitCarried(t)
}

// leader is the Pod that holds the Lease.
func (r *installation) leader(t *testing.T) *corev1.Pod {
	t.Helper()
	lease, err := shared.client.CoordinationV1().Leases(namespace).Get(t.Context(), release, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		t.Fatal("nobody leads")
	}
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	pod, err := shared.client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func restartAPIServer(t *testing.T, _ *installation, s *stream) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := shared.RestartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	s.more(t, after)
}

// stopRegistry stops it for longer than a denial is remembered, and for less than
// what was verified is.
func stopRegistry(t *testing.T, _ *installation, s *stream) {
	s.away.Store(true)
	if err := shared.vault.Stop(); err != nil {
		t.Fatal(err)
	}
	s.more(t, 12)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := shared.vault.Restart(ctx, func(*registry.ProcessOptions) {}); err != nil {
		t.Fatal(err)
	}
	// That nothing could be said is remembered for 2 s.
	s.more(t, 5)
	s.away.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.row.excused == 0 {
		t.Error("nothing was Inconclusive: the registry was not missed")
	}
}

// fillLogs: what replicas print is lost, and nothing else.
func fillLogs(t *testing.T, r *installation, s *stream) {
	free, err := shared.node.FillLogs()
	if err != nil {
		t.Fatal(err)
	}
	full := r.printed(t)
	s.more(t, 5)
	if still := r.printed(t); still > full+replicas*pageSize {
		t.Errorf("%d bytes of logs were written to a disk that is full", still-full)
	}
	if err := free(); err != nil {
		t.Fatal(err)
	}
	full = r.printed(t)
	eventually(t, "logs are written again", func(context.Context) error {
		if now := r.printed(t); now <= full+replicas*pageSize {
			return fmt.Errorf("%d bytes more", now-full)
		}
		return nil
	})
}

// pageSize is what a file may still get on a disk that is full: the rest of its
// last page.
const pageSize = 4 << 10

// printed is how many bytes of logs of the replicas there are.
func (r *installation) printed(t *testing.T) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.node.PodLogs(), namespace+"_*", "*", "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d logs: %v", len(files), err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// rollUpgrade replaces all replicas.
func rollUpgrade(t *testing.T, r *installation, _ *stream) {
	before := names(t, r)
	r.upgrade(t, "--set-json", timesArgument(shortTimes), "--set-string", "podAnnotations.upgraded=once")
	r.awaitReady(t, replicas)
	for name := range names(t, r) {
		if before[name] {
			t.Errorf("%s is still there", name)
		}
	}
}

// shorten has the keys replaced, because those that are there are for the times by
// which they were made.
func shorten(t *testing.T, r *installation) {
	old := r.settled(t)
	deleteKeys(t.Context(), t)
	r.until(t, "the keys are others", func(k keys) bool { return k.settled() && k.authorities[0] != old.authorities[0] })
}

// rotate waits until leaf and authority have changed by themselves, and the old
// authority is trusted no more.
func rotate(t *testing.T, r *installation, _ *stream) {
	old := r.settled(t)
	r.until(t, "there is another leaf, by another authority, and it alone", func(k keys) bool {
		return k.settled() && k.leaf != old.leaf && k.authorities[0] != old.authorities[0]
	})
	r.awaitCarried(t)
}
