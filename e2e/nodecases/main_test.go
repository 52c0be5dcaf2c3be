// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package nodecases_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/node"
)

// startWithin bounds the start of control plane and node.
const startWithin = 4 * time.Minute

// world is what all cases share.
type world struct {
	*cluster.Cluster

	node   *node.Node
	client *kubernetes.Clientset
	// probe is the image of ./probe.
	probe string
}

// shared is set by TestMain, before the first case.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(node.Main(func() int {
		code, err := run(m)
		if err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
			return 1
		}
		return code
	}))
}

func run(m *testing.M) (code int, err error) {
	dir, err := node.TempDir()
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	w := &world{}
	if w.Cluster, err = cluster.Start(ctx, node.ClusterOptions(filepath.Join(dir, "cluster"))); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	if w.node, err = node.Start(ctx, w.Cluster, node.Options{Dir: filepath.Join(dir, "node"), Log: os.Stderr}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.node.Stop()) }()
	if w.client, err = kubernetes.NewForConfig(w.Config()); err != nil {
		return 1, err
	}
	w.probe = w.node.Registry + "/acme/probe:v1"
	if err := w.node.Push(ctx, w.probe, node.Image{Package: "./nodecases/probe", User: "65532:65532"}); err != nil {
		return 1, err
	}
	shared = w
	return m.Run(), nil
}
