// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/google/trillian"
	"github.com/google/trillian/extension"
	"github.com/google/trillian/log"
	"github.com/google/trillian/monitoring"
	"github.com/google/trillian/quota"
	"github.com/google/trillian/server"
	"github.com/google/trillian/server/admin"
	"github.com/google/trillian/storage/memory"
	"github.com/google/trillian/util/clock"
	"github.com/google/trillian/util/election"
	"github.com/google/trillian/util/election2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
)

const (
	// sequencerInterval is how long an entry waits to become part of the tree:
	// each signature with a Rekor of version 1 waits so long for its proof.
	sequencerInterval = 50 * time.Millisecond
	sequencerBatch    = 100
	sequencerWorkers  = 2
	// sequencerTimeout bounds one round.
	sequencerTimeout = 10 * time.Second
)

// startTrillian runs a Trillian log server, its sequencer and its admin server
// on trillianPort, with storage in memory, and returns a connection to it.
func startTrillian(ctx context.Context) (*grpc.ClientConn, error) {
	// It warns at every round that there is a log to do nothing for.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	trees := memory.NewTreeStorage()
	registry := extension.Registry{
		AdminStorage:    memory.NewAdminStorage(trees),
		LogStorage:      memory.NewLogStorage(trees, monitoring.InertMetricFactory{}),
		ElectionFactory: election2.NoopFactory{},
		QuotaManager:    quota.Noop(),
		MetricFactory:   monitoring.InertMetricFactory{},
	}
	listener, err := net.Listen("tcp", loopback(trillianPort))
	if err != nil {
		return nil, fmt.Errorf("listening for Trillian: %w", err)
	}
	grpcServer := grpc.NewServer()
	trillian.RegisterTrillianLogServer(grpcServer, server.NewTrillianLogRPCServer(registry, clock.System))
	// Rekor makes its own tree by the admin server.
	trillian.RegisterTrillianAdminServer(grpcServer, admin.New(registry, []trillian.TreeType{trillian.TreeType_LOG}))
	go func() { _ = grpcServer.Serve(listener) }()

	sequencer := log.NewOperationManager(log.OperationInfo{
		Registry:       registry,
		BatchSize:      sequencerBatch,
		NumWorkers:     sequencerWorkers,
		RunInterval:    sequencerInterval,
		Timeout:        sequencerTimeout,
		TimeSource:     clock.System,
		ElectionConfig: election.RunnerConfig{TimeSource: clock.System},
	}, log.NewSequencerManager(registry, 0))
	go sequencer.OperationLoop(ctx)

	connection, err := grpc.NewClient(loopback(trillianPort), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connecting to Trillian: %w", err)
	}
	return connection, nil
}
