// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryLimit is what a child may use: what CUE takes for the documents of
	// attestations in use, with room, and what a node can spare twice.
	memoryLimit = 256 << 20
	// memoryGoal is where a child begins to collect garbage, so that the limit is
	// reached by what is in use alone. Below it, which is where most requests end,
	// collecting is a waste of time.
	memoryGoal = memoryLimit / 8 * 7
	// memoryIdle is what a child may keep between requests; beyond it, and if
	// collecting garbage does not help, it ends. CUE never forgets the name of a
	// field.
	memoryIdle = memoryLimit / 4
	// memoryInterval is how often the memory is looked at. Go fills memory at a
	// few GB/s: some MB in between.
	memoryInterval = 2 * time.Millisecond
	// maxStack ends a recursion: the parsers go some hundred bytes deeper with
	// each level, and JSON has at most ten thousand.
	maxStack = 64 << 20
	// childThreads is how many threads of a child calculate: one evaluates, and
	// one is left for collecting garbage and looking at the memory. More would be
	// taken from the parent.
	childThreads = 2
)

// exitMemory is the exit code of a child that used more than memoryLimit.
const exitMemory = 79

// limitProcess bounds this process before it reads anything.
func limitProcess() {
	runtime.GOMAXPROCS(childThreads)
	debug.SetMemoryLimit(memoryGoal)
	debug.SetGCPercent(-1)
	debug.SetMaxStack(maxStack)
	limitData()
}

// memoryUsed is what the runtime counts towards its limit.
func memoryUsed() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// watchMemory ends the process if it uses more than memoryLimit, until stop is
// called.
func watchMemory() (stop func()) {
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(memoryInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				if memoryUsed() > memoryLimit {
					os.Exit(exitMemory)
				}
			}
		}
	}()
	return func() { close(done) }
}

// freeMemory gives back what a request left, and reports whether the process may
// go on.
func freeMemory() bool {
	if memoryUsed() <= memoryIdle {
		return true
	}
	debug.FreeOSMemory()
	return memoryUsed() <= memoryIdle
}
