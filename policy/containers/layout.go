// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

// Bounds of what lies on the local disk at a time, and in memory before: one
// manifest's signatures of either kind (as much as the largest that is read, and
// hundreds of usual ones); all images of one registry, so that none takes the place
// of the others; and all.
const (
	maxSignatures = 1 << 20
	maxHost       = 64 << 20
	maxDisk       = 256 << 20
	// block is what a file takes at least.
	block = 4 << 10
)

// room counts what may lie on the disk.
type room struct {
	mutex       sync.Mutex
	total       int64
	hosts       map[string]int64
	most, share int64
	// judged counts the manifests that are judged now.
	judged map[string]int
	// given is closed when some is given back, if anybody waits for that.
	given chan struct{}
}

// diskRoom is that of the process, of which the disk is one.
var diskRoom = newRoom(maxDisk, maxHost)

func newRoom(most, share int64) *room {
	return &room{hosts: map[string]int64{}, judged: map[string]int{}, most: most, share: share}
}

// take takes room for bytes of a registry. Where there is none it waits for others
// to give theirs back, as long as ctx lets it.
func (r *room) take(ctx context.Context, host string, n int64) error {
	return r.wait(ctx, host, func() bool {
		if r.total+n > r.most || r.hosts[host]+n > r.share {
			return false
		}
		r.total += n
		r.hosts[host] += n
		return true
	})
}

// maxJudged is how many manifests of one registry are judged at a time. The library
// cannot be interrupted, and its signatures may be made to be slow: one registry
// must not take all processors with that.
const maxJudged = 4

// judge takes one of the places of those of a registry that are judged; the
// caller gives it back.
func (r *room) judge(ctx context.Context, host string) (back func(), err error) {
	err = r.wait(ctx, host, func() bool {
		if r.judged[host] >= maxJudged {
			return false
		}
		r.judged[host]++
		return true
	})
	return func() {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		if r.judged[host]--; r.judged[host] == 0 {
			delete(r.judged, host)
		}
		r.tell()
	}, err
}

// wait tries, whenever something was given back, until it succeeds or ctx ends.
func (r *room) wait(ctx context.Context, host string, try func() bool) error {
	for {
		r.mutex.Lock()
		if try() {
			r.mutex.Unlock()
			return nil
		}
		if r.given == nil {
			r.given = make(chan struct{})
		}
		given := r.given
		r.mutex.Unlock()
		select {
		case <-given:
		case <-ctx.Done():
			return policy.Undecided(policy.ReasonLimit, "too many signatures are being judged at once: there is no room for more of %s", host).Err()
		}
	}
}

// tell has those try again who wait. The mutex is held.
func (r *room) tell() {
	if r.given != nil {
		close(r.given)
		r.given = nil
	}
}

// give gives it back.
func (r *room) give(host string, n int64) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.total -= n
	if r.hosts[host] -= n; r.hosts[host] <= 0 {
		delete(r.hosts, host)
	}
	r.tell()
}

// How the library writes signatures of both forms in a folder (go.podman.io/image,
// docs/containers-signature.5.md has the first; the other is in no document). The
// first, without its name, may be mistaken for the other; with it never.
const (
	simplePrefix   = "\x00simple-signing\n"
	sigstorePrefix = "\x00sigstore-json\n"
)

// attachment is a sigstore signature as the library reads it from a folder.
func attachment(s registry.Signature) ([]byte, error) {
	content, err := json.Marshal(struct {
		MediaType   string            `json:"mimeType"`
		Payload     []byte            `json:"payload"`
		Annotations map[string]string `json:"annotations"`
	}{s.UntrustedMediaType, s.UntrustedPayload, s.UntrustedAnnotations})
	if err != nil {
		return nil, fmt.Errorf("writing a signature: %w", err)
	}
	return append([]byte(sigstorePrefix), content...), nil
}

// layout writes a manifest and its signatures to a folder of their own, in the
// form that the library reads. The caller removes it, also after an error: then
// it may be empty, and its name is.
func layout(hex string, untrustedManifest []byte, untrustedSignatures [][]byte) (folder string, err error) {
	folder, err = os.MkdirTemp("", "pratique-image-") // 0700
	if err != nil {
		return "", onDisk(err)
	}
	write := func(name string, content []byte) error {
		return os.WriteFile(filepath.Join(folder, name), content, 0o600)
	}
	if err := write(hex+".manifest.json", untrustedManifest); err != nil {
		return folder, onDisk(err)
	}
	for i, one := range untrustedSignatures {
		if err := write(fmt.Sprintf("%s.signature-%d", hex, i+1), one); err != nil {
			return folder, onDisk(err)
		}
	}
	return folder, nil
}

// onDisk says that the local disk is at fault, without the names on it.
func onDisk(err error) error {
	why := "the folder for temporary files cannot be used"
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		why = failed.Err.Error()
	}
	return policy.Undecided(policy.ReasonInternal,
		"its signatures cannot be kept in %s to be judged: %s; where the root file system is read-only, mount an emptyDir there", os.TempDir(), why).Err()
}
