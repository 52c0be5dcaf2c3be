// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pratique-dev/pratique/policy/trust"
)

func write(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileMustBeGoodAtFirst(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "trusted_root.json")
	if _, err := trust.NewFile(path, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without the file: %v", err)
	}
	write(t, path, []byte("{}"))
	if _, err := trust.NewFile(path, nil); err == nil || !strings.Contains(err.Error(), "mediaType") {
		t.Errorf("with another file: %v", err)
	}
	if _, err := trust.NewFile("/dev/zero", nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("with a file without an end: %v", err)
	}
}

func TestFileIsReadAgain(t *testing.T) {
	t.Parallel()
	const withinSpec = 5 * time.Second // spec section 3
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trusted_root.json")
		first, second := goodText(t), goodText(t)
		write(t, path, first)
		var changes atomic.Int32
		file, err := trust.NewFile(path, func() { changes.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			file.Run(ctx)
		}()
		want := func(raw []byte, message string, wantChanges int) {
			t.Helper()
			time.Sleep(withinSpec)
			synctest.Wait()
			got, err := file.Root()
			if err != nil || got.Hash != mustParse(t, raw).Hash {
				t.Errorf("it is another root, or none: %v", err)
			}
			switch err := file.Err(); {
			case message == "" && err != nil, message != "" && (err == nil || !strings.Contains(err.Error(), message)):
				t.Errorf("the error is %v, want %q", err, message)
			}
			if got := int(changes.Load()); got != wantChanges {
				t.Errorf("%d changes, want %d", got, wantChanges)
			}
		}
		want(first, "", 0)
		write(t, path, second)
		want(second, "", 1)
		write(t, path, first[:len(first)/2])
		want(second, "not JSON", 2)
		want(second, "not JSON", 2) // told once
		write(t, path, second)
		want(second, "", 3)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		want(second, "no such file", 4)
		write(t, path, second)
		want(second, "", 5)
		cancel()
		<-ended
		write(t, path, first)
		want(second, "", 5)
	})
}
