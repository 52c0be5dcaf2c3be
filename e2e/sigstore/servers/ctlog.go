// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/certificate-transparency-go/trillian/ctfe"
	"github.com/google/certificate-transparency-go/trillian/ctfe/configpb"
	"github.com/google/trillian"
	"github.com/google/trillian/client"
	"github.com/google/trillian/crypto/keys"
	"github.com/google/trillian/crypto/keys/der"
	"github.com/google/trillian/crypto/keyspb"
	"github.com/google/trillian/monitoring"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// ctLogPrefix is the first part of the log's paths.
	ctLogPrefix = "test"
	// ctLogDeadline bounds one call to Trillian.
	ctLogDeadline = 10 * time.Second
)

// startCTLog serves a certificate transparency log for Fulcio's certificates on
// ctLogPort, in a new tree.
func startCTLog(ctx context.Context, dir string, connection *grpc.ClientConn) error {
	logClient := trillian.NewTrillianLogClient(connection)
	tree, err := client.CreateAndInitTree(ctx, &trillian.CreateTreeRequest{Tree: &trillian.Tree{
		TreeType:  trillian.TreeType_LOG,
		TreeState: trillian.TreeState_ACTIVE,
		// Without it Trillian makes no tree.
		MaxRootDuration: durationpb.New(time.Hour),
	}}, trillian.NewTrillianAdminClient(connection), logClient)
	if err != nil {
		return fmt.Errorf("making the tree of the certificate transparency log: %w", err)
	}
	key, err := readKey(filepath.Join(dir, "ctlog.key"))
	if err != nil {
		return err
	}
	keys.RegisterHandler(&keyspb.PrivateKey{}, der.FromProto)
	config, err := ctfe.ValidateLogConfig(&configpb.LogConfig{
		LogId:        tree.GetTreeId(),
		Prefix:       ctLogPrefix,
		RootsPemFile: []string{filepath.Join(dir, "fulcio-root.pem")},
		PrivateKey:   key,
		ExtKeyUsages: []string{"CodeSigning"},
	})
	if err != nil {
		return fmt.Errorf("checking the configuration of the certificate transparency log: %w", err)
	}
	instance, err := ctfe.SetUpInstance(ctx, ctfe.InstanceOptions{
		Validated:     config,
		Client:        logClient,
		Deadline:      ctLogDeadline,
		MetricFactory: monitoring.InertMetricFactory{},
		RequestLog:    new(ctfe.DefaultRequestLog),
	})
	if err != nil {
		return fmt.Errorf("setting up the certificate transparency log: %w", err)
	}

	mux := http.NewServeMux()
	for path, handler := range instance.Handlers {
		mux.Handle(path, handler)
	}
	listener, err := net.Listen("tcp", loopback(ctLogPort))
	if err != nil {
		return fmt.Errorf("listening for the certificate transparency log: %w", err)
	}
	logServer := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	go func() { _ = logServer.Serve(listener) }()
	return nil
}

// readKey reads a private key in the form that the log takes it without a
// password.
func readKey(path string) (*anypb.Any, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the log's key: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("reading the log's key: %s is not PEM", path)
	}
	key, err := anypb.New(&keyspb.PrivateKey{Der: block.Bytes})
	if err != nil {
		return nil, fmt.Errorf("encoding the log's key: %w", err)
	}
	return key, nil
}
