// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/node"
	"github.com/pratique-dev/pratique/e2e/registry"
)

const (
	// startWithin bounds the start of all that the cases share.
	startWithin = 4 * time.Minute
	// The release, and the namespace that its own objects are in.
	release   = "pratique"
	namespace = "pratique-system"
	// imageTag is that of Pratique's own image.
	imageTag = "test"
	// program is what its process is called.
	program = "pratique"
	// logSpace is far more than what all containers print.
	logSpace = 64 << 20
)

// world is what all cases share.
type world struct {
	*cluster.Cluster

	node   *node.Node
	client *kubernetes.Clientset
	dir    string
	// repository is where Pratique's own image is.
	repository string
	// vault is the private registry, and authority the PEM file by which it is
	// trusted.
	vault     *registry.Process
	authority string
	acme      *acme
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
	w := &world{}
	if w.dir, err = node.TempDir(); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	if w.Cluster, err = cluster.Start(ctx, node.ClusterOptions(w.path("cluster"))); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	if w.node, err = node.Start(ctx, w.Cluster, node.Options{Dir: w.path("node"), Log: os.Stderr, LogSpace: logSpace}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.node.Stop()) }()
	config := w.Config()
	config.WarningHandler = rest.NoWarnings{} // of which Audit has one for each answer
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		return 1, err
	}
	if err := w.startVault(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.vault.Stop()) }()
	w.repository = w.node.Registry + "/pratique"
	if err := w.carry(ctx); err != nil {
		return 1, err
	}
	if w.acme, err = w.newAcme(ctx); err != nil {
		return 1, err
	}
	shared = w
	return m.Run(), nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// startVault starts the private registry, which the node trusts and has no
// password for.
func (w *world) startVault(ctx context.Context) error {
	cert, err := cluster.NewServingCert(w.path("vault-cert"), node.Address)
	if err != nil {
		return err
	}
	w.authority = cert.CAFile
	w.vault, err = registry.StartProcess(ctx, registry.ProcessOptions{
		Dir: w.path("vault"), Address: node.Address, Cert: &cert,
		Users: map[string]string{pusher: pusherPassword, puller: pullerPassword},
	})
	if err != nil {
		return err
	}
	return w.node.Trust(w.vault.Host, w.authority)
}

// carry puts Pratique's own image where the node pulls it from, as make image
// has made it for this platform.
func (w *world) carry(ctx context.Context) error {
	root, err := cluster.Checkout()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "bin", "node-image")
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("reading Pratique's image: %w; build it with: make node-image", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir, err)
	}
	to, err := name.NewTag(w.repository + ":" + imageTag)
	if err != nil {
		return fmt.Errorf("naming Pratique's image: %w", err)
	}
	for _, descriptor := range manifest.Manifests {
		if !descriptor.MediaType.IsIndex() {
			continue // an SBOM
		}
		made, err := index.ImageIndex(descriptor.Digest)
		if err != nil {
			return fmt.Errorf("reading %s: %w", dir, err)
		}
		if err := remote.WriteIndex(to, made, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("carrying Pratique's image to the node: %w", err)
		}
		return nil
	}
	return fmt.Errorf("%s has no index", dir)
}

// copyTag copies one image to a registry behind TLS and a password.
func (w *world) copyTag(ctx context.Context, from, to string) (v1.Hash, error) {
	source, err := name.NewTag(from)
	if err != nil {
		return v1.Hash{}, err
	}
	target, err := name.NewTag(to)
	if err != nil {
		return v1.Hash{}, err
	}
	image, err := remote.Image(source, remote.WithContext(ctx))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("reading %s: %w", from, err)
	}
	transport := w.vault.Transport()
	defer transport.CloseIdleConnections()
	if err := remote.Write(target, image, w.asPusher(ctx, transport)...); err != nil {
		return v1.Hash{}, fmt.Errorf("copying to %s: %w", to, err)
	}
	return image.Digest()
}
